"""The service's HTTP side: what clients may ask, and how they are answered. It decodes none of their files."""

import asyncio
import hmac
import logging
import threading
import time
from collections.abc import AsyncGenerator, Callable
from contextlib import asynccontextmanager
from importlib import metadata
from typing import Annotated, Any, Literal
from urllib.parse import quote

from fastapi import Depends, FastAPI, Query, Request, Response
from fastapi.middleware.cors import CORSMiddleware
from fastapi.responses import HTMLResponse, JSONResponse, PlainTextResponse

from leanface.errors import BackendError
from leanface.monitoring.monitor import Monitor, Report, markdown
from leanface.report.templates import render
from leanface.serving.messages import Answer, Format, Job
from leanface.serving.metrics import Metrics
from leanface.serving.pool import BusyError, ClosedError, Watchers, WorkerPool
from leanface.serving.reference import ReferenceMeasurement
from leanface.serving.refusals import FAILURES, STATUS, Refused
from leanface.serving.settings import Settings
from leanface.serving.uploads import Uploads
from leanface.serving.web import furnish, known_query, respond

logger = logging.getLogger(__name__)

MEDIA_TYPES: dict[Format, str] = {"json": "application/json", "glb": "model/gltf-binary", "png": "image/png"}

NETWORK = "X-LeanFace-Network"
"""Header of every answer with faces: which network read them."""

HERE = "http://127.0.0.1:8000"
"""Address of the service in its description; the page to read shows the one that the reader has."""

DESCRIPTION = f"""Send a photo as the request's body:

    curl --data-binary @photo.jpg '{HERE}/v1/reconstruct?format=glb' -o face.glb

An error is `{{"error": KIND, "detail": TEXT}}`; its kind decides the status.
Where the service has a key, send it as `X-API-Key` or `Authorization: Bearer`.
"""

DOCS_HEADERS = {"Content-Security-Policy": "default-src 'none'; style-src 'unsafe-inline'; base-uri 'none'"}

PHOTO_TYPES = ("image/jpeg", "image/png", "image/webp", "application/octet-stream")
PHOTO_BODY: dict[str, Any] = {
    "requestBody": {
        "required": True,
        "content": {kind: {"schema": {"type": "string", "format": "binary"}} for kind in PHOTO_TYPES},
    }
}

ERROR_CONTENT: dict[str, Any] = {
    "application/json": {
        "schema": {
            "type": "object",
            "properties": {name: {"type": "string"} for name in ("error", "detail")},
            "required": ["error", "detail"],
        }
    }
}

FORMAT = "json: coefficients, pose and landmarks; glb: mesh of the largest face; png: the photo with its faces"
FACES = "of the photo, for json and png"
TEXTURE = "side in pixels, for glb"


class Service:
    """What the routes share: workers, metrics, monitor. Nothing runs before `workers.start`."""

    def __init__(self, settings: Settings) -> None:
        self.settings = settings
        self.metrics = Metrics(lambda: self.workers.waiting, lambda: self.workers.ready, settings.places)
        self.workers = WorkerPool(settings, Watchers(self.metrics.restarted, self.metrics.memory))
        self.monitor = Monitor(settings.tick_s)
        self.started = time.monotonic()
        self._lock = threading.Lock()

    def refuse(self, refused: Refused) -> None:
        """Count a request that was refused without being looked at; it says nothing of the service's speed."""
        self.metrics.refused(refused.kind)
        with self._lock:
            self.monitor.refused(refused.kind)

    def count(self, answer: Answer, seconds: float) -> None:
        """Count a request that was answered `seconds` after it came."""
        self.metrics.answered(answer, seconds)
        with self._lock:
            self.monitor.request(self._now(), 1000 * seconds, answer.error, answer.error in FAILURES)
            if answer.features is not None:
                self.monitor.faces(answer.features)

    def tick(self) -> Report:
        """Let the monitor judge the time since the last tick."""
        with self._lock:
            events, report = self.monitor.tick(self._now()), self.monitor.report(self._now())
        for event in events:
            logger.warning("%s", event.text)
        self.metrics.monitored(report, events)
        return report

    def report(self) -> Report:
        """Ask the monitor what it knows now."""
        with self._lock:
            return self.monitor.report(self._now())

    async def watch(self, on_report: Callable[[Report], None]) -> None:
        """Tick for ever; once the network's reference is there, watch drift too."""
        measurement = ReferenceMeasurement(self.settings) if self.settings.watch_drift else None
        try:
            while True:
                await asyncio.sleep(self.settings.tick_s)
                try:
                    if measurement and (reference := measurement.poll()):
                        self.monitor.compare_with(reference)
                        measurement = None
                    await asyncio.to_thread(on_report, self.tick())  # MLflow may be slow
                except Exception:
                    logger.exception("the monitor failed")
        finally:
            if measurement:
                measurement.stop()

    def _now(self) -> float:
        return time.monotonic() - self.started


def create_app(
    settings: Settings,
    on_report: Callable[[Report], None] = lambda report: None,
    on_failure: Callable[[BackendError], None] = lambda error: None,
) -> FastAPI:
    """Make the service as an ASGI application; its lifespan starts and ends the workers.

    Args:
        on_report: called with each of the monitor's reports.
        on_failure: called if no worker can start.
    """
    service = Service(settings)

    async def start_workers() -> None:
        try:
            ready = await asyncio.to_thread(service.workers.wait_ready)
            logger.info("ready: %s (%s, %s)", ready.model, ready.precision, ready.runtime)
        except BackendError as error:
            on_failure(error)

    @asynccontextmanager
    async def lifespan(app: FastAPI) -> AsyncGenerator[None]:
        service.workers.start()
        tasks = [asyncio.create_task(service.watch(on_report)), asyncio.create_task(start_workers())]
        yield
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
        await asyncio.to_thread(service.workers.close, settings.time_limit_s)

    app = FastAPI(
        title="LeanFace",
        version=metadata.version("leanface"),
        description=DESCRIPTION,
        lifespan=lifespan,
        # FastAPI's own pages load their scripts from elsewhere.
        docs_url=None,
        redoc_url=None,
    )
    app.state.service = service
    if settings.cors_origins:
        app.add_middleware(
            CORSMiddleware,
            allow_origins=settings.cors_origins,
            allow_methods=["GET", "POST"],
            allow_headers=["*"],
            expose_headers=[NETWORK],
        )
    furnish(app, settings.root_path, service.refuse)

    uploads = Uploads(settings.bytes_max, settings.time_limit_s)
    key = settings.api_key.get_secret_value() if settings.api_key else None

    async def authorize(request: Request) -> None:
        if key is not None and not _has_key(request, key):
            raise Refused("unauthorized", "send the key as `X-API-Key` or `Authorization: Bearer`.")

    @app.post(
        "/v1/reconstruct",
        dependencies=[Depends(authorize), Depends(known_query)],
        openapi_extra=PHOTO_BODY,
        response_class=Response,
        responses={200: {"content": {kind: {} for kind in MEDIA_TYPES.values()}}, **_errors()},
    )
    async def reconstruct(
        request: Request,
        format: Annotated[Format, Query(description=FORMAT)] = "json",
        faces: Annotated[Literal["all", "largest"], Query(description=FACES)] = "all",
        texture: Annotated[Literal["0", "512", "1024", "2048"], Query(description=TEXTURE)] = "0",
    ) -> Response:
        """Read every face in the photo that is the request's body."""
        start = time.monotonic()
        try:
            photo = await uploads.read(request)
            job = Job(photo, format, faces, int(texture))  # pyright: ignore[reportArgumentType]
            answer = await _answer(service.workers, job, settings.time_limit_s - (time.monotonic() - start))
        except Refused as refused:
            answer = Answer(error=refused.kind, detail=refused.detail)
        service.count(answer, time.monotonic() - start)
        if answer.error is not None:
            return respond(Refused(answer.error, answer.detail))
        return Response(answer.body, headers={NETWORK: quote(answer.network)}, media_type=MEDIA_TYPES[format])

    @app.get("/docs", include_in_schema=False)
    async def docs(request: Request) -> Response:
        """Describe the service to people."""
        page = render("serving/docs.html.j2", **app.openapi(), here=HERE, there=str(request.base_url).rstrip("/"))
        return HTMLResponse(page, headers=DOCS_HEADERS)

    @app.get("/healthz")
    async def alive() -> dict[str, str]:
        """Tell that the process runs."""
        return {"status": "alive"}

    @app.get("/readyz", responses={503: {"description": "not yet, or not now"}})
    async def ready() -> Response:
        """Tell whether a worker can read photos."""
        count = len(service.workers.ready)
        return JSONResponse({"status": "ready" if count else "not ready", "workers": count}, 200 if count else 503)

    @app.get(
        "/metrics",
        dependencies=[Depends(authorize)],
        response_class=PlainTextResponse,
        responses=_errors("unauthorized"),
    )
    async def prometheus() -> Response:
        """Show the metrics to Prometheus."""
        return Response(service.metrics.exposition(), media_type="text/plain; version=1.0.0; charset=utf-8")

    @app.get(
        "/v1/monitor",
        dependencies=[Depends(authorize), Depends(known_query)],
        responses={200: {"content": {"text/markdown": {}}}, **_errors("unauthorized", "bad_query")},
    )
    async def monitor(format: Annotated[Literal["json", "markdown"], Query()] = "json") -> Response:
        """Report how the service does, and whether the photos look like the training's."""
        report = service.report()
        if format == "markdown":
            return Response(markdown(report), media_type="text/markdown; charset=utf-8")
        return JSONResponse(report.as_json())

    return app


async def _answer(workers: WorkerPool, job: Job, seconds: float) -> Answer:
    if not workers.ready:
        raise Refused("not_ready", "no worker is ready; ask /readyz and try again.")
    try:
        future = workers.submit(job)
    except BusyError:
        raise Refused("busy", "too many photos wait; try again later.") from None
    except ClosedError:
        raise Refused("not_ready", "the service is stopping.") from None
    try:
        return await asyncio.wait_for(asyncio.wrap_future(future), max(seconds, 0.001))
    except TimeoutError:
        return Answer(error="time_limit", detail="reading the photo took too long; send a smaller one, or try later.")


def _has_key(request: Request, key: str) -> bool:
    """Tell whether a request has the key, in a time that does not depend on how much of it is right."""
    scheme, _, bearer = request.headers.get("authorization", "").partition(" ")
    sent = request.headers.get("x-api-key") or (bearer.strip() if scheme.lower() == "bearer" else "")
    return hmac.compare_digest(sent.encode(), key.encode())


def _errors(*kinds: str) -> dict[int | str, dict[str, Any]]:
    """Describe the statuses of these kinds of errors, or of all."""
    described: dict[int | str, dict[str, Any]] = {}
    for kind in kinds or STATUS:
        known = described.setdefault(STATUS[kind], {"description": "", "content": ERROR_CONTENT})
        known["description"] = ", ".join(filter(None, (known["description"], kind)))
    return described
