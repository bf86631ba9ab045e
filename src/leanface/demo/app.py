"""The demo's page and its answers: a photo in; pictures, numbers and meshes out; or a webcam's frames, with meshes.

The page and its 3D viewer come with the package: nothing is loaded from elsewhere, and nothing is kept after an answer.
"""

import base64
import io
import math
import threading
import time
from collections.abc import Callable
from contextlib import ExitStack
from importlib.resources import files
from pathlib import Path
from typing import Annotated, Any

import numpy as np
from fastapi import Depends, FastAPI, Query, Request, Response
from fastapi.concurrency import run_in_threadpool
from fastapi.responses import FileResponse, HTMLResponse, JSONResponse
from jaxtyping import UInt8
from PIL import Image

from leanface.catalog import runtime_title
from leanface.demo.live import Live
from leanface.errors import ArtifactError, NoFaceError
from leanface.photos.load import PACKAGED_PHOTOS, load_photo, photo_path
from leanface.reconstruction.lean_face import LeanFace
from leanface.reconstruction.pictures import overlay, view
from leanface.reconstruction.result import Reconstruction
from leanface.reconstruction.side_by_side import (
    distance_mm,
    face_row,
    network_times,
    open_teacher,
    read_both,
    speed_text,
    turn_deg,
)
from leanface.report.pictures import DIFFERENCE_SHADES
from leanface.report.sheet import DIFFERENCE_GAIN
from leanface.serving.photos import decode
from leanface.serving.refusals import Refused
from leanface.serving.server import listen, new_server, url
from leanface.serving.server import run as run_server
from leanface.serving.settings import Settings
from leanface.serving.uploads import Uploads
from leanface.serving.web import furnish, known_query

UPLOAD_S = 60.0
"""Longer than the service allows: a visitor's phone may have a slow network."""

WAITING_MAX = 4
"""Photos that may be in work or wait for it; more are refused."""

FACES_HEADER = "LeanFace-Faces"
"""Says how many faces were drawn into a frame."""

VIEWER_NAME_MAX = 40

STOP_S = 10.0
TEXTURE_PX = 1024
TURNS = 24
"""Pictures of the head on its way once around, for browsers without WebGL."""

TURN_PX = 320

VIEWER = "model-viewer.min.js"
"""Its version and license lie beside it."""

# The browser itself refuses anything that this server does not send.
HEADERS = {
    "Content-Security-Policy": "default-src 'none'; script-src 'self' 'unsafe-inline' 'wasm-unsafe-eval'; "
    "style-src 'unsafe-inline'; img-src 'self' data: blob:; media-src blob:; connect-src 'self' blob:; "
    "base-uri 'none'; form-action 'none'; frame-ancestors 'none'",
    "Cache-Control": "no-store",
    "X-Content-Type-Options": "nosniff",
    "Referrer-Policy": "no-referrer",
}

LIMITS = Settings()


class Demo:
    """Reads a photo by two networks, one photo at a time, and knows how long each network takes here."""

    def __init__(self, teacher: LeanFace, student: LeanFace) -> None:
        """Time both networks on an example photo and answer it once, so that no visitor's photo is the slow first."""
        self.teacher = teacher
        self.student = student
        self._lock = threading.Lock()
        example = next(iter(PACKAGED_PHOTOS))
        self.timings = network_times(teacher, student, load_photo(example))
        self.reconstruct(photo_path(example).read_bytes())

    def networks(self) -> dict[str, dict[str, Any]]:
        """Describe both networks to the page."""
        return {
            name: {
                "file": network.model_path.name,
                "image_px": network.image_size,
                "precision": network.precision,
                "runtime": runtime_title(network.runtime.name),
                "network_ms": round(self.timings[name].latency_ms, 2),
                "runs": self.timings[name].runs,
                "speed": speed_text(self.timings[name]),
            }
            for name, network in (("teacher", self.teacher), ("student", self.student))
        }

    def reconstruct(self, content: bytes, turntable: bool = False) -> dict[str, Any]:
        """Read the largest face of a photo's file, and draw what the page shows.

        Args:
            content: the file.
            turntable: draw the head from all sides, too, which takes longer than all else.

        Raises:
            Refused: the file is no photo, or an enormous one, or shows no face that can be read.
        """
        with self._lock:
            start = time.perf_counter()
            photo = decode(content, LIMITS.pixels_max, formats=None)
            try:
                (pair,) = read_both(self.teacher, self.student, photo, "largest")
            except NoFaceError as error:
                raise Refused("no_face", error.found[0].upper() + error.found[1:]) from None
            except ArtifactError as error:  # a face that lies on its side
                raise Refused("no_face", str(error)) from None
            row = face_row(1, photo, pair, self.timings)
            teacher = self.teacher.textured(pair.teacher, photo, TEXTURE_PX)
            student = self.student.textured(pair.student, photo, TEXTURE_PX)
            answer_ms = 1000 * (time.perf_counter() - start)
            pictures = {
                "input": row.photo,
                "teacher": row.teacher,
                "student": row.student,
                "difference": DIFFERENCE_SHADES(row.difference * DIFFERENCE_GAIN)[..., :3],
            }
            return {
                "distance_mm": distance_mm(pair),
                "turn_deg": turn_deg(pair),
                "answer_ms": round(answer_ms),
                "difference_gain": DIFFERENCE_GAIN,
                "networks": self.networks(),
                "pictures": {name: _picture_url(_bytes(picture), "PNG") for name, picture in pictures.items()},
                "overlay": _picture_url(overlay(photo, [student]), "JPEG"),
                "meshes": {"teacher": _mesh_url(teacher), "student": _mesh_url(student)},
                "turntable": {"pictures": _turntable_url(student), "count": TURNS} if turntable else None,
            }


def create_app(reconstruct: Callable[[bytes, bool], dict[str, Any]], live: Live, root_path: str = "") -> FastAPI:
    """Make the application: the page at /, its viewer and examples, and POST /reconstruct and /live.

    Args:
        reconstruct: answers a photo's file, see `Demo.reconstruct`.
        live: draws into a webcam's frames.
        root_path: path prefix under which a reverse proxy offers the demo.
    """
    app = FastAPI(title="LeanFace demo", docs_url=None, redoc_url=None, openapi_url=None)
    furnish(app, root_path)
    folder = files("leanface.demo")
    page = (folder / "page.html").read_text(encoding="utf-8").replace("BYTES_MAX", str(LIMITS.bytes_max))
    script = (folder / "vendor" / VIEWER).read_bytes()
    uploads = Uploads(LIMITS.bytes_max, UPLOAD_S)
    places = threading.BoundedSemaphore(WAITING_MAX)

    @app.get("/")
    async def index() -> Response:
        return HTMLResponse(page, headers=HEADERS)

    @app.get(f"/{VIEWER}")
    async def viewer() -> Response:
        return Response(script, headers=HEADERS, media_type="text/javascript")

    @app.get("/examples/{name}")
    async def example(name: str) -> Response:
        if name not in PACKAGED_PHOTOS:
            raise Refused("not_found", f"no such example; there are {', '.join(PACKAGED_PHOTOS)}.")
        return FileResponse(photo_path(name), headers=HEADERS)

    @app.get("/healthz")
    async def alive() -> dict[str, str]:
        return {"status": "alive"}

    @app.post("/reconstruct", dependencies=[Depends(known_query)])
    async def answer(request: Request, turntable: bool = False) -> Response:
        content = await uploads.read(request)
        # Only whole photos take a place: an upload that never ends keeps no one waiting.
        if not places.acquire(blocking=False):
            raise Refused("busy", "The demo is busy. Try again in a few seconds.")
        try:
            return JSONResponse(await run_in_threadpool(reconstruct, content, turntable), headers=HEADERS)
        finally:
            places.release()

    @app.post("/live", dependencies=[Depends(known_query)])
    async def follow(
        request: Request, viewer: Annotated[str, Query(max_length=VIEWER_NAME_MAX)], both: bool = False
    ) -> Response:
        content = await uploads.read(request)
        if not places.acquire(blocking=False):
            raise Refused("busy", "The demo is busy. Try again in a few seconds.")
        try:
            drawn = await run_in_threadpool(live.draw, content, viewer, LIMITS.pixels_max, both=both)
        finally:
            places.release()
        return Response(drawn.jpeg, headers={**HEADERS, FACES_HEADER: str(len(drawn.numbers))}, media_type="image/jpeg")

    return app


def run(
    host: str,
    port: int,
    *,
    model: Path | None = None,
    runtime: str = "auto",
    original: str,
    threads: int | None = None,
    root_path: str = "",
) -> None:
    """Open both networks and serve the page until Ctrl-C.

    Args:
        original: the network to compare with, see `leanface.reconstruction.side_by_side.open_teacher`.
        root_path: path prefix under which a reverse proxy offers the demo.

    Raises:
        LeanFaceError: the address or the prefix cannot be used, or a network cannot be opened.
    """
    settings = Settings.given({"host": host, "port": port, "root_path": root_path}, {})
    with ExitStack() as stack:
        listening = stack.enter_context(listen(host, port))
        student = stack.enter_context(LeanFace.load(model, runtime, threads))
        demo = Demo(stack.enter_context(open_teacher(original, student, threads)), student)
        print(f"open {url(host, port)} (Ctrl-C ends it)", flush=True)
        app = create_app(demo.reconstruct, Live(demo.teacher, student), settings.root_path)
        run_server(new_server(app, STOP_S), listening)


def _bytes(picture: np.ndarray) -> UInt8[np.ndarray, "H W 3"]:
    return (picture * 255).round().clip(0, 255).astype(np.uint8)


def _picture_url(picture: UInt8[np.ndarray, "H W 3"], form: str) -> str:
    stream = io.BytesIO()
    Image.fromarray(picture).save(stream, form, quality=88)
    return _url(stream.getvalue(), f"image/{form.lower()}")


def _turntable_url(face: Reconstruction) -> str:
    turns = [view(face, 2 * math.pi * index / TURNS, TURN_PX) for index in range(TURNS)]
    return _picture_url(np.concatenate(turns, 1), "JPEG")


def _mesh_url(face: Reconstruction) -> str:
    """Encode the very file that `leanface reconstruct` writes."""
    return _url(face.encode_mesh("face.glb")["face.glb"], "model/gltf-binary")


def _url(content: bytes, kind: str) -> str:
    return f"data:{kind};base64,{base64.b64encode(content).decode()}"
