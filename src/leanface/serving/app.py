"""The HTTP side: what clients may ask, and how they are answered. It decodes nothing that they send."""

import asyncio
import hmac
import logging
import multiprocessing
import threading
import time
from collections.abc import AsyncGenerator, Callable
from contextlib import asynccontextmanager
from importlib import metadata
from typing import Annotated, Any, Literal

from fastapi import Depends, FastAPI, Query, Request, Response
from fastapi.exceptions import RequestValidationError
from fastapi.middleware.cors import CORSMiddleware
from fastapi.responses import HTMLResponse, JSONResponse, PlainTextResponse
from starlette.exceptions import HTTPException
from starlette.requests import ClientDisconnect

from leanface.errors import ArtifactError, BackendError
from leanface.monitoring.drift import Reference
from leanface.monitoring.monitor import Monitor, Report, markdown
from leanface.report.templates import render
from leanface.serving.fleet import BusyError, ClosedError, Fleet, Watchers
from leanface.serving.messages import FAILURES, STATUS, Answer, Format, Job
from leanface.serving.metrics import Metrics
from leanface.serving.reference import measure_reference, reference_path
from leanface.serving.settings import Settings

logger = logging.getLogger(__name__)

MEDIA_TYPES: dict[Format, str] = {"json": "application/json", "glb": "model/gltf-binary", "png": "image/png"}
RETRY_SECONDS = 1

DESCRIPTION = """Send a photo as the request's body:

    curl --data-binary @photo.jpg 'http://127.0.0.1:8000/v1/reconstruct?format=glb' -o face.glb

An error is `{"error": KIND, "detail": TEXT}`; its kind decides the status.
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


class RefusedRequest(Exception):
    """Answered with an error before any worker saw it."""

    def __init__(self, kind: str, detail: str) -> None:
        super().__init__(detail)
        self.answer = Answer(error=kind, detail=detail)


class Service:
    """What the routes share: workers, metrics, monitor."""

    def __init__(self, settings: Settings) -> None:
        """Nothing is started yet."""
        self.settings = settings
        self.metrics = Metrics(lambda: self.fleet.waiting, lambda: self.fleet.ready)
        self.fleet = Fleet(settings, Watchers(self.metrics.restarted, self.metrics.memory))
        self.monitor = Monitor(settings.tick_s)
        self.started = time.monotonic()
        self._lock = threading.Lock()

    def count(self, answer: Answer, seconds: float) -> None:
        """A request was answered so many seconds after it came."""
        self.metrics.answered(answer, seconds)
        with self._lock:
            self.monitor.request(self._now(), 1000 * seconds, answer.error, answer.error in FAILURES)
            if answer.features is not None:
                self.monitor.faces(answer.features)

    def tick(self) -> Report:
        """Let the monitor judge."""
        with self._lock:
            events, report = self.monitor.tick(self._now()), self.monitor.report(self._now())
        for event in events:
            logger.warning("%s", event.text)
        self.metrics.monitored(report, events)
        return report

    def report(self) -> Report:
        """What the monitor knows now."""
        with self._lock:
            return self.monitor.report(self._now())

    async def watch(self, on_report: Callable[[Report], None]) -> None:
        """Tick for ever; once the network's reference is there, watch drift too."""
        measured = _Measurement(self.settings) if self.settings.watch_drift else None
        try:
            while True:
                await asyncio.sleep(self.settings.tick_s)
                if measured and (reference := measured.poll()):
                    self.monitor.compare_with(reference)
                    measured = None
                on_report(self.tick())
        finally:
            if measured:
                measured.stop()

    def _now(self) -> float:
        return time.monotonic() - self.started


class _Measurement:
    """The reference, read from its file or measured by a process that writes it."""

    def __init__(self, settings: Settings) -> None:
        self._path = reference_path(settings)
        self._process = None
        if not self._path.exists():
            context = multiprocessing.get_context("spawn")
            self._process = context.Process(target=measure_reference, args=(settings, self._path), daemon=True)
            self._process.start()

    def poll(self) -> Reference | None:
        if not self._path.exists():
            return None
        try:
            return Reference.load(self._path)
        except ArtifactError as error:
            logger.warning("%s", error)
            return None

    def stop(self) -> None:
        if self._process is not None:
            self._process.kill()


def create_app(
    settings: Settings,
    on_report: Callable[[Report], None] = lambda report: None,
    on_failure: Callable[[BackendError], None] = lambda error: None,
) -> FastAPI:
    """The service as an ASGI application, which starts its workers with its lifespan and ends them with it.

    Args:
        on_report: called with each of the monitor's reports.
        on_failure: called if no worker can start.
    """
    service = Service(settings)

    async def start_workers() -> None:
        try:
            ready = await asyncio.to_thread(service.fleet.wait_ready)
            logger.info("ready: %s (%s, %s)", ready.model, ready.precision, ready.runtime)
        except BackendError as error:
            on_failure(error)

    @asynccontextmanager
    async def lifespan(app: FastAPI) -> AsyncGenerator[None]:
        service.fleet.start()
        tasks = [asyncio.create_task(service.watch(on_report)), asyncio.create_task(start_workers())]
        yield
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
        await asyncio.to_thread(service.fleet.close, settings.time_limit_s)

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
            CORSMiddleware, allow_origins=settings.cors_origins, allow_methods=["GET", "POST"], allow_headers=["*"]
        )

    async def authorize(request: Request) -> None:
        if settings.api_key is not None and not _sent_key(request, settings.api_key):
            raise RefusedRequest("unauthorized", "send the key as `X-API-Key` or `Authorization: Bearer`.")

    @app.exception_handler(RefusedRequest)
    async def refused(request: Request, error: RefusedRequest) -> Response:
        service.count(error.answer, 0.0)
        return respond(error.answer, "json")

    @app.exception_handler(RequestValidationError)
    async def misasked(request: Request, error: RequestValidationError) -> Response:
        wrong = "; ".join(f"{found['loc'][-1]}: {found['msg']}" for found in error.errors())
        return await refused(request, RefusedRequest("bad_query", wrong))

    @app.exception_handler(HTTPException)
    async def misdirected(request: Request, error: HTTPException) -> Response:
        """FastAPI's own refusals, 404 and 405, in the form of all others."""
        asked = f"there is no {request.method} {request.url.path}; /docs describes what there is."
        kind = "wrong_method" if error.status_code == 405 else "not_found"
        answer = await refused(request, RefusedRequest(kind, asked))
        answer.headers.update(error.headers or {})
        return answer

    @app.post(
        "/v1/reconstruct",
        dependencies=[Depends(authorize)],
        openapi_extra=PHOTO_BODY,
        response_class=Response,
        responses={200: {"content": {kind: {} for kind in MEDIA_TYPES.values()}}, **_errors()},
    )
    async def reconstruct(
        request: Request,
        format: Annotated[Format, Query(description=FORMAT)] = "json",
        faces: Annotated[Literal["all", "largest"], Query(description="of the photo, for json and png")] = "all",
        texture: Annotated[Literal["0", "512", "1024", "2048"], Query(description="side in pixels, for glb")] = "0",
    ) -> Response:
        """Every face in the photo that is the request's body."""
        start = time.monotonic()
        try:
            photo = await _body(request, settings)
            job = Job(photo, format, faces, int(texture))  # pyright: ignore[reportArgumentType]
            answer = await _answer(service.fleet, job, settings.time_limit_s - (time.monotonic() - start))
        except RefusedRequest as error:
            answer = error.answer
        except ClientDisconnect:
            return Response(status_code=499)
        service.count(answer, time.monotonic() - start)
        return respond(answer, format)

    @app.get("/docs", include_in_schema=False)
    async def docs() -> Response:
        """What there is to ask for, to read."""
        return HTMLResponse(render("serving/docs.html.j2", **app.openapi()), headers=DOCS_HEADERS)

    @app.get("/healthz")
    async def alive() -> dict[str, str]:
        """The process runs."""
        return {"status": "alive"}

    @app.get("/readyz", responses={503: {"description": "not yet, or not now"}})
    async def ready() -> Response:
        """A worker can read photos."""
        content = {"status": "ready" if service.fleet.ready else "not ready", "workers": service.fleet.ready}
        return JSONResponse(content, 200 if service.fleet.ready else 503)

    @app.get(
        "/metrics",
        dependencies=[Depends(authorize)],
        response_class=PlainTextResponse,
        responses=_errors("unauthorized"),
    )
    async def prometheus() -> Response:
        """For Prometheus."""
        return Response(service.metrics.exposition(), media_type="text/plain; version=1.0.0; charset=utf-8")

    @app.get(
        "/v1/monitor",
        dependencies=[Depends(authorize)],
        responses={200: {"content": {"text/markdown": {}}}, **_errors("unauthorized", "bad_query")},
    )
    async def monitor(format: Annotated[Literal["json", "markdown"], Query()] = "json") -> Response:
        """How the service does, and whether the photos look like the training's."""
        report = service.report()
        if format == "markdown":
            return Response(markdown(report), media_type="text/markdown; charset=utf-8")
        return JSONResponse(report.as_json())

    return app


def respond(answer: Answer, format: Format) -> Response:
    """An answer as HTTP has it."""
    if answer.error is None:
        return Response(answer.body, media_type=MEDIA_TYPES[format])
    status = STATUS[answer.error]
    headers = {"Retry-After": str(RETRY_SECONDS)} if status in (429, 503) else {}
    if answer.error == "unauthorized":
        headers["WWW-Authenticate"] = "Bearer"
    return JSONResponse({"error": answer.error, "detail": answer.detail}, status, headers)


async def _body(request: Request, settings: Settings) -> bytes:
    """The photo's file, unless it is too large or takes too long to arrive."""
    detail = f"a photo's file may have {settings.bytes_max:,} bytes."
    declared = request.headers.get("content-length", "")
    if declared.isdecimal() and int(declared) > settings.bytes_max:
        raise RefusedRequest("too_large", detail)
    parts: list[bytes] = []
    size = 0
    try:
        async with asyncio.timeout(settings.time_limit_s):
            async for part in request.stream():
                size += len(part)
                if size > settings.bytes_max:
                    raise RefusedRequest("too_large", detail)
                parts.append(part)
    except TimeoutError:
        raise RefusedRequest("slow_upload", f"the photo did not arrive within {settings.time_limit_s:g} s.") from None
    if not size:
        raise RefusedRequest("not_a_photo", "the request has no body; send the photo's file as it is.")
    return b"".join(parts)


async def _answer(fleet: Fleet, job: Job, seconds: float) -> Answer:
    if not fleet.ready:
        raise RefusedRequest("not_ready", "no worker is ready; ask /readyz and try again.")
    try:
        future = fleet.submit(job)
    except BusyError:
        raise RefusedRequest("busy", "too many photos wait; try again later.") from None
    except ClosedError:
        raise RefusedRequest("not_ready", "the service is stopping.") from None
    try:
        return await asyncio.wait_for(asyncio.wrap_future(future), max(seconds, 0.001))
    except TimeoutError:
        return Answer(error="time_limit", detail="reading the photo took too long; send a smaller one, or try later.")


def _sent_key(request: Request, key: str) -> bool:
    """Whether a request has the key; how long that takes says nothing of how much of it is right."""
    scheme, _, bearer = request.headers.get("authorization", "").partition(" ")
    sent = request.headers.get("x-api-key") or (bearer if scheme.lower() == "bearer" else "")
    return hmac.compare_digest(sent.encode("latin-1", "replace"), key.encode())


def _errors(*kinds: str) -> dict[int | str, dict[str, Any]]:
    """For the description: the statuses of these kinds, or of all, with the kinds of each."""
    described: dict[int | str, dict[str, Any]] = {}
    for kind in kinds or STATUS:
        known = described.setdefault(STATUS[kind], {"description": "", "content": ERROR_CONTENT})
        known["description"] = ", ".join(filter(None, (known["description"], kind)))
    return described
