"""The demo's page and what it asks for: one photo in, pictures, numbers and a mesh out.

The page and its 3D viewer come with the package: nothing is loaded from elsewhere, and nothing is kept after an answer.
"""

import base64
import io
import math
import tempfile
import threading
import time
from collections.abc import Callable
from contextlib import ExitStack, suppress
from importlib.resources import files
from pathlib import Path
from typing import Any

import numpy as np
import uvicorn
from fastapi import FastAPI, Request, Response
from fastapi.concurrency import run_in_threadpool
from fastapi.responses import FileResponse, HTMLResponse, JSONResponse
from jaxtyping import UInt8
from PIL import Image
from starlette.requests import ClientDisconnect

from leanface.errors import ArtifactError, LeanFaceError, NoFaceError
from leanface.listening import listen, url
from leanface.photos.load import PACKAGED_PHOTOS, load_photo, photo_path
from leanface.reconstruction.lean_face import LeanFace
from leanface.reconstruction.pictures import overlay, view
from leanface.reconstruction.result import Reconstruction
from leanface.reconstruction.side_by_side import (
    distance_mm,
    face_row,
    network_times,
    open_original,
    read_both,
    turn_deg,
)
from leanface.report.pictures import DIFFERENCE_SHADES
from leanface.report.sheet import DIFFERENCE_GAIN
from leanface.report.tables import RUNTIME_NAMES

BYTES_MAX = 20 * 2**20
"""Of a photo's file."""

PIXELS_MAX = 50_000_000
WAITING_MAX = 4
"""Photos that may be in work or wait for it; more are refused."""

TEXTURE_PX = 1024
TURNS = 24
"""Pictures of the head on its way once around, for browsers without WebGL."""

TURN_PX = 320

VIEWER = "model-viewer.min.js"
"""Its version and licence lie beside it."""

# Nothing but what this server sends: the browser itself refuses anything from elsewhere.
HEADERS = {
    "Content-Security-Policy": "default-src 'none'; script-src 'self' 'unsafe-inline' 'wasm-unsafe-eval'; "
    "style-src 'unsafe-inline'; img-src 'self' data: blob:; media-src blob:; connect-src 'self' blob:; "
    "base-uri 'none'; form-action 'none'; frame-ancestors 'none'",
    "Cache-Control": "no-store",
    "X-Content-Type-Options": "nosniff",
    "Referrer-Policy": "no-referrer",
}


class Demo:
    """Two networks, and how long each takes here; one photo at a time."""

    def __init__(self, original: LeanFace, compressed: LeanFace) -> None:
        """Time both networks on an example photo and answer it once, so that no visitor's photo is the slow first."""
        self.original = original
        self.compressed = compressed
        self._lock = threading.Lock()
        example = next(iter(PACKAGED_PHOTOS))
        self.timings = network_times(original, compressed, load_photo(example))
        self.reconstruct(photo_path(example).read_bytes())

    def networks(self) -> list[dict[str, Any]]:
        """What the page says of each."""
        return [
            {
                "name": name,
                "file": lean_face.model_path.name,
                "precision": lean_face.precision,
                "runtime": RUNTIME_NAMES[lean_face.runtime.name],
                "network_ms": round(self.timings[name].p50_ms, 2),
                "runs": self.timings[name].runs,
                "unstable": bool(self.timings[name].reason),
            }
            for name, lean_face in (("original", self.original), ("compressed", self.compressed))
        ]

    def reconstruct(self, content: bytes, turntable: bool = False) -> dict[str, Any]:
        """The largest face of a photo's file, as the page shows it.

        Args:
            content: the file.
            turntable: draw the head from all sides, too, which takes longer than all else.

        Raises:
            ArtifactError: the file is no photo, or an enormous one, or shows no face that can be read.
        """
        with self._lock:
            start = time.perf_counter()
            photo = _decode(content)
            (pair,) = read_both(self.original, self.compressed, photo, "largest")
            row = face_row(1, photo, pair, self.timings)
            original = self.original.textured(pair.original, photo, TEXTURE_PX)
            compressed = self.compressed.textured(pair.compressed, photo, TEXTURE_PX)
            answer_ms = 1000 * (time.perf_counter() - start)
            shades = DIFFERENCE_SHADES(row.difference * DIFFERENCE_GAIN)[..., :3]
            pictures = {
                "input": row.photo,
                "original": row.original,
                "compressed": row.compressed,
                "difference": shades,
            }
            return {
                "distance_mm": distance_mm(pair),
                "turn_deg": turn_deg(pair),
                "answer_ms": round(answer_ms),
                "difference_gain": DIFFERENCE_GAIN,
                "networks": self.networks(),
                "pictures": {name: _picture_url(_bytes(picture), "PNG") for name, picture in pictures.items()},
                "overlay": _picture_url(overlay(photo, [compressed]), "JPEG"),
                "meshes": {"original": _mesh_url(original), "compressed": _mesh_url(compressed)},
                "turntable": {"pictures": _turntable_url(compressed), "count": TURNS} if turntable else None,
            }


def create_app(reconstruct: Callable[[bytes, bool], dict[str, Any]]) -> FastAPI:
    """The page at /, its viewer, its example photos, and POST /reconstruct, whose body is a photo's file."""
    app = FastAPI(title="LeanFace demo", docs_url=None, redoc_url=None, openapi_url=None)
    folder = files("leanface.demo")
    page = (folder / "page.html").read_text(encoding="utf-8").replace("BYTES_MAX", str(BYTES_MAX))
    script = (folder / "vendor" / VIEWER).read_bytes()
    slots = threading.BoundedSemaphore(WAITING_MAX)

    def index() -> Response:
        return HTMLResponse(page, headers=HEADERS)

    def example(name: str) -> Response:
        if name not in PACKAGED_PHOTOS:
            return _refusal(404, f"no such example; there are {', '.join(PACKAGED_PHOTOS)}.")
        return FileResponse(photo_path(name), headers=HEADERS)

    def viewer() -> Response:
        return Response(script, headers=HEADERS, media_type="text/javascript")

    async def answer(request: Request, turntable: bool = False) -> Response:
        if not slots.acquire(blocking=False):
            return _refusal(503, "The demo is busy. Try again in a few seconds.")
        try:
            content = bytearray()
            async for chunk in request.stream():
                content += chunk
                if len(content) > BYTES_MAX:
                    return _refusal(413, f"The file is larger than {BYTES_MAX >> 20} MiB. Choose a smaller photo.")
            if not content:
                return _refusal(400, "The file is empty. Choose a photo.")
            return JSONResponse(await run_in_threadpool(reconstruct, bytes(content), turntable), headers=HEADERS)
        except ClientDisconnect:
            return _refusal(400, "The upload ended early.")  # nobody reads it
        except NoFaceError as error:
            return _refusal(422, error.found[0].upper() + error.found[1:])
        except ArtifactError as error:
            return _refusal(422, str(error))
        except LeanFaceError as error:
            return _refusal(500, str(error))
        finally:
            slots.release()

    app.add_api_route("/", index, methods=["GET"])
    app.add_api_route(f"/{VIEWER}", viewer, methods=["GET"])
    app.add_api_route("/examples/{name}", example, methods=["GET"])
    app.add_api_route("/reconstruct", answer, methods=["POST"])
    return app


def run(
    host: str, port: int, *, model: Path | None = None, runtime: str = "auto", original: str, threads: int | None = None
) -> None:
    """Open both networks and serve the page until Ctrl-C.

    Raises:
        LeanFaceError: the address cannot be had, or a network cannot be opened.
    """
    with ExitStack() as stack:
        listening = stack.enter_context(listen(host, port))
        compressed = stack.enter_context(LeanFace.load(model, runtime, threads))
        demo = Demo(stack.enter_context(open_original(original, compressed, threads)), compressed)
        print(f"open {url(host, port)} (Ctrl-C ends it)", flush=True)
        config = uvicorn.Config(create_app(demo.reconstruct), log_level="warning", server_header=False)
        with suppress(KeyboardInterrupt):
            uvicorn.Server(config).run(sockets=[listening])


def _decode(content: bytes) -> UInt8[np.ndarray, "H W 3"]:
    try:
        with Image.open(io.BytesIO(content)) as header:  # reads no pixels yet
            width, height = header.size
    except Exception:  # as many kinds as there are formats
        raise ArtifactError("This file is not a photo that can be read. Choose a whole JPEG, PNG or WebP.") from None
    if width * height > PIXELS_MAX:
        raise ArtifactError(
            f"The photo has {width} x {height} pixels, more than {PIXELS_MAX // 10**6} million. Choose a smaller one."
        )
    return load_photo(io.BytesIO(content))


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
    """The very file that `leanface reconstruct` writes."""
    with tempfile.TemporaryDirectory() as folder:
        mesh = Path(folder) / "face.glb"
        face.save_mesh(mesh)
        return _url(mesh.read_bytes(), "model/gltf-binary")


def _url(content: bytes, kind: str) -> str:
    return f"data:{kind};base64,{base64.b64encode(content).decode()}"


def _refusal(status: int, message: str) -> Response:
    return JSONResponse({"error": message}, status, headers=HEADERS)
