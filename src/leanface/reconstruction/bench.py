"""`leanface bench --end-to-end`: where the time goes from a photo file to a mesh file, step by step."""

import functools
import logging
import os
import sys
import tempfile
import time
from collections.abc import Callable, Generator
from contextlib import ExitStack, contextmanager
from itertools import count
from pathlib import Path
from typing import NamedTuple

import numpy as np
from jaxtyping import UInt8
from PIL import Image
from rich import box
from rich.console import Console
from rich.table import Table
from tqdm import tqdm

from leanface.catalog import MEASURES
from leanface.config import Benchmark
from leanface.errors import ArtifactError
from leanface.metrics.latency import Timing, measure_latency
from leanface.metrics.ratio import MedianEstimate
from leanface.photos.detector import FaceDetection
from leanface.photos.load import load_photo
from leanface.photos.mtcnn import Mtcnn
from leanface.reconstruction.flow import reconstruct_all
from leanface.reconstruction.lean_face import LeanFace
from leanface.reconstruction.outputs import Settings
from leanface.reconstruction.pictures import overlay, preview
from leanface.reconstruction.sources import find_sources
from leanface.reconstruction.streams import Streams
from leanface.runtime.batches import run_in_batches

PHOTO = "grace_hopper"
NETWORK = "network"
JOURNEY, ORIGINALS = "photo to GLB", "photo to GLB, original"
"""The second: MTCNN finds the face, PyTorch runs the original in float32, and the texture is a PNG."""

LARGE_PX = 4096
LARGE_JOURNEY = f"photo to GLB with {LARGE_PX} px"
LARGE_ON_CPU, LARGE_ON_TWO_CORES = f"{LARGE_JOURNEY}, CPU", f"{LARGE_JOURNEY}, two cores"
"""Measured where the network is on a GPU: there, and by the CPU alone."""

REST = "all but the network"

PHOTOS, SMALL_PHOTOS, SMALL_PX = 12, 48, 256
"""How many copies of the photo a folder holds, and a folder of small ones; the longer side of those."""

FOLDER = f"{PHOTOS} photos to GLBs"
SMALL_FOLDER = f"{SMALL_PHOTOS} photos of {SMALL_PX} px to coefficients"

STREAM_WIDTH, STREAM_HEIGHT, STREAM_HZ = 640, 480, 30
SWAYS_PX, SWAYS_FRAMES = (60, 50), (120, 180)
"""How far the camera sways across and down, and in how many frames."""

SECONDS = 60.0
"""For all steps together. A machine that is too busy for it still runs each step a few times, see RUNS_MIN."""

SHARES = {"crop": 0.15, "photo": 0.35, "files": 0.6, "folder": 0.75, "streams": 0.85, "journey": 1.0}
"""When, as a share of the time, each part's measurement ends; what one leaves, the next may use."""

RUNS_MIN = 3

PHOTO_QUALITY = 95
"""Of the JPEG files in the folders."""

MIN_FACE_PX = 40
"""That MTCNN looks for, as `LeanFace` does by default."""

logger = logging.getLogger(__name__)


class Step(NamedTuple):
    """A step's name, its time, and what it belongs to: a crop's reading, a photo's, its files, a folder's, or all.

    Attributes:
        baseline: the step that its speed-up is over.
    """

    name: str
    part: str
    timing: Timing
    baseline: str | None = None


def bench_end_to_end(
    path: Path | None,
    settings: Benchmark,
    photo_name: str = PHOTO,
    seconds: float = SECONDS,
    original: Path | None = None,
    streams: int = 0,
) -> list[Step]:
    """Time each step on a photo with one face, batch 1, with a line of progress on standard error.

    Where the network runs on a GPU, the journey with the largest texture is measured on the CPU, too.

    Args:
        original: a bundle whose journey is measured in turns with the network's; see `ORIGINALS`.
        streams: how many cameras to read at once, see `leanface.reconstruction.streams`. Their frames are in memory;
            none is decoded.
        settings: threads (of the network), warmup, window, windows_max and interval are used.
        seconds: after which no step is measured any more, if each has run at least RUNS_MIN times.

    Raises:
        LeanFaceError: the network cannot be opened, or there is no face in the photo.
    """
    start = time.monotonic()
    with ExitStack() as stack:
        folder = stack.enter_context(tempfile.TemporaryDirectory())
        lean_face = stack.enter_context(LeanFace.load(path, threads=settings.threads))
        photo = load_photo(photo_name)
        crops = lean_face.crop(photo, "largest")
        pixels = crops[0].crop[None]
        images = lean_face.to_input(pixels)
        (coefficients,) = lean_face.read(pixels)
        (face,) = lean_face.decode(coefficients[None], crops)
        textured = lean_face.textured(face, photo, 1024)
        decoder = lean_face.surface.decoder
        png = Path(folder) / "photo.png"
        Image.fromarray(photo).save(png)

        def journey(lean_face: LeanFace, texture_px: int) -> None:
            (found,) = lean_face.reconstruct(png, texture_size=texture_px, faces="largest")
            found.encode_mesh()

        def rest() -> None:
            lean_face.to_input(pixels)
            lean_face.decode(coefficients[None], crops)

        calls: dict[tuple[str, str], Callable[[], object]] = {
            ("crop", "pixels to input"): lambda: lean_face.to_input(pixels),
            ("crop", NETWORK): lambda: run_in_batches(lean_face.runtime, images),
            ("crop", "vertices"): lambda: decoder.vertices(coefficients),
            ("crop", "pose"): lambda: decoder.camera(face.vertices, face.pose.rotation, coefficients),
            ("crop", "normals"): lambda: decoder.normals(face.vertices),
            ("crop", REST): rest,
            ("photo", "read PNG"): lambda: load_photo(png),
            ("photo", "find faces"): lambda: lean_face.detect(photo),
            ("photo", "align"): lambda: lean_face.align(photo, crops[0].detection),
            ("files", "texture 1024 px"): lambda: lean_face.textured(face, photo, 1024),
            ("files", "texture 4096 px"): lambda: lean_face.textured(face, photo, 4096),
            ("files", "GLB with 1024 px"): lambda: textured.save_mesh(Path(folder) / "face.glb"),
            ("files", "texture 4096 px and GLB"): lambda: lean_face.textured(face, photo, 4096).encode_mesh(),
            ("files", "preview"): lambda: preview(textured),
            ("files", "overlay"): lambda: overlay(photo, [textured]),
            ("folder", FOLDER): _folder(lean_face, photo, PHOTOS, Path(folder), Settings(pictures=False)),
            ("folder", SMALL_FOLDER): _folder(
                lean_face, _small(photo), SMALL_PHOTOS, Path(folder), Settings(None, 0, pictures=False)
            ),
            ("journey", JOURNEY): lambda: journey(lean_face, 1024),
        }
        baselines: dict[tuple[str, str], tuple[str, str]] = {}
        if streams:
            call = stack.enter_context(_watching(lean_face, photo, streams))
            calls["streams", f"a frame of {streams} streams to vertices"] = call
        if original is not None:
            teacher = stack.enter_context(LeanFace.load(original, "torch", settings.threads))
            calls["journey", ORIGINALS] = _originals_journey(teacher, png)
            baselines |= dict.fromkeys([("journey", JOURNEY), ("journey", ORIGINALS)], ("journey", ORIGINALS))
        if lean_face.on_gpu:
            on_cpu = stack.enter_context(LeanFace.load(path, "cpu", settings.threads))
            with _two_cores():  # which the threads that are started here keep to
                on_two = stack.enter_context(LeanFace.load(path, "cpu", 2))
            large = functools.partial(journey, texture_px=LARGE_PX)
            calls["journey", LARGE_JOURNEY] = lambda: large(lean_face)
            calls["journey", LARGE_ON_CPU] = lambda: large(on_cpu)
            calls["journey", LARGE_ON_TWO_CORES] = _two_cores()(lambda: large(on_two))
            for name in (LARGE_JOURNEY, LARGE_ON_CPU, LARGE_ON_TWO_CORES):
                baselines["journey", name] = "journey", LARGE_ON_TWO_CORES
        logger.info("measuring %d steps, for about %.0f s at most", len(calls), seconds)
        timings: dict[tuple[str, str], Timing] = {}
        with tqdm(
            desc="starting", bar_format="{elapsed} {desc}", disable=None, leave=False, file=sys.stderr
        ) as progress:
            # What takes long is measured apart: in turns it would leave the caches cold for what takes little.
            for part, share in SHARES.items():
                timings |= measure_latency(
                    {key: call for key, call in calls.items() if key[0] == part},
                    warmup=settings.warmup if part == "crop" else 1 if part == "folder" else 2,
                    window=settings.window if part in ("crop", "photo") else max(RUNS_MIN, settings.window // 3),
                    windows_max=settings.windows_max,
                    interval=settings.interval,
                    baselines={key: base for key, base in baselines.items() if key[0] == part},
                    until=start + share * seconds,
                    runs_min=RUNS_MIN,
                    on_window=lambda key: progress.set_description_str(": ".join(key)),
                )
    return [Step(name, part, timings[part, name], baselines.get((part, name), (part, None))[1]) for part, name in calls]


@contextmanager
def _two_cores() -> Generator[None]:
    """Keep this thread, and those that it starts meanwhile, to two of the cores, where the system can."""
    if not hasattr(os, "sched_setaffinity"):
        yield
        return
    all_cores = os.sched_getaffinity(0)
    os.sched_setaffinity(0, sorted(all_cores)[:2])
    try:
        yield
    finally:
        os.sched_setaffinity(0, all_cores)


@contextmanager
def _watching(lean_face: LeanFace, photo: UInt8[np.ndarray, "H W 3"], streams: int) -> Generator[Callable[[], object]]:
    """Let cameras sway before the photo; each call of the result reads their next frames."""
    period = int(np.lcm(*SWAYS_FRAMES))
    margin = [STREAM_HEIGHT // 2 + SWAYS_PX[1], STREAM_WIDTH // 2 + SWAYS_PX[0]]
    wall = np.pad(photo, [(side, side) for side in margin] + [(0, 0)], "edge")
    frames: list[np.ndarray] = []
    for place in range(period):
        down, across = (
            int(side / 2 + far * (1 + np.sin(2 * np.pi * place / frames_each)))
            for side, far, frames_each in zip(photo.shape[:2], SWAYS_PX[::-1], SWAYS_FRAMES[::-1], strict=True)
        )
        frames.append(np.ascontiguousarray(wall[down : down + STREAM_HEIGHT, across : across + STREAM_WIDTH]))
    ticks = count()
    with Streams(lean_face, streams) as watched:

        def tick() -> None:
            now = next(ticks)
            # They begin within a second, not all at once, and look for new people at different times from then on.
            begun = [number % STREAM_HZ <= now for number in range(streams)]
            shown = [frames[(now + 7 * number) % period] if here else None for number, here in enumerate(begun)]
            found = watched(shown, now / STREAM_HZ)
            if lost := sum(begun) - sum(len(faces.crops) for faces in found):
                raise ArtifactError(f"{lost} of {streams} streams lost the face of {PHOTO} in frame {now}.")

        for _ in range(STREAM_HZ):
            tick()
        yield tick


def _folder(
    lean_face: LeanFace, photo: UInt8[np.ndarray, "H W 3"], count: int, within: Path, settings: Settings
) -> Callable[[], object]:
    folder = within / f"{count}_photos"
    folder.mkdir()
    for number in range(count):
        Image.fromarray(photo).save(folder / f"{number}.jpg", quality=PHOTO_QUALITY)
    sources = find_sources([str(folder)])

    def reconstruct() -> None:
        for outcome in reconstruct_all(lean_face, sources, within / f"{count}_results", settings, redo=True):
            if outcome.error is not None:
                raise ArtifactError(f"{outcome.name} of a folder of copies of the photo failed: {outcome.error}")

    return reconstruct


def _small(photo: UInt8[np.ndarray, "H W 3"]) -> UInt8[np.ndarray, "h w 3"]:
    image = Image.fromarray(photo)
    image.thumbnail((SMALL_PX, SMALL_PX))
    return np.asarray(image)


def _originals_journey(teacher: LeanFace, png: Path) -> Callable[[], object]:
    mtcnn = Mtcnn()

    def journey() -> None:
        photo = load_photo(png)
        found = mtcnn.find(photo, MIN_FACE_PX)
        largest = int(np.argmax(found.boxes[:, 3] - found.boxes[:, 1]))
        face = FaceDetection(found.boxes[largest], found.landmarks[largest], float(found.scores[largest]))
        crop = teacher.align(photo, face)
        (decoded,) = teacher.decode(teacher.read(crop.crop[None]), [crop])
        teacher.textured(decoded, photo, 1024).encode_mesh(texture_format="png")

    return journey


def ratio(steps: list[Step]) -> float:
    """Divide the time of everything but the network, for an aligned crop, by the network's own."""
    times = {step.name: step.timing.latency_ms for step in steps}
    return times[REST] / times[NETWORK]


def print_steps(steps: list[Step], console: Console) -> None:
    """Print a table, and below it the ratio and what varied too much."""
    table = Table(box=box.SIMPLE_HEAD, padding=(0, 1))
    for heading in ("Part", "Step", "p50 ms", "p95 ms", "Runs"):
        table.add_column(heading, justify="left" if heading in ("Part", "Step") else "right", no_wrap=True)
    part = ""
    for step in steps:
        times = (f"{ms:.2f}" for ms in (step.timing.latency_ms, step.timing.p95_ms))
        table.add_row("" if step.part == part else step.part, step.name, *times, str(step.timing.runs))
        part = step.part
    console.print(table)
    console.print(f"everything but the network, for an aligned crop: {ratio(steps):.2f} times the network's own time")
    for step in steps:
        if step.part == "streams":
            p50, p95 = (1e3 / ms for ms in (step.timing.latency_ms, step.timing.p95_ms))
            console.print(f"{step.name}: {p50:.0f} frames per second from each, {p95:.0f} in the slowest 5 %")
        if (gain := step.timing.speedup) is not None and step.name != step.baseline:
            text = MEASURES["speedup"].text(gain.value)
            console.print(f"{step.name}: {text} as fast as {step.baseline}{_interval(gain)}", soft_wrap=True)
    if uncertain := [step.name for step in steps if step.timing.latency.too_wide]:
        console.print(
            f"times that vary too much: {', '.join(uncertain)}; leave the machine idle and measure again",
            markup=False,
            soft_wrap=True,
        )


def _interval(gain: MedianEstimate) -> str:
    if gain.low is None or gain.high is None:
        return ""
    return f" (95 % interval {MEASURES['speedup'].interval_text((gain.low, gain.high))})"
