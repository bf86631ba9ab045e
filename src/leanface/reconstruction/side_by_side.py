"""Compare what two networks predict for the same faces, and how long each takes: `leanface reconstruct --compare`."""

import logging
import time
from collections.abc import Callable, Generator, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import asdict
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import torch
from jaxtyping import Float, UInt8

from leanface.errors import ArtifactError, reason
from leanface.face.render import Renderer
from leanface.files import forget_others, staged_beside, write_json
from leanface.metrics.latency import Timing, measure_latency
from leanface.photos.alignment import resample
from leanface.reconstruction.lean_face import Faces, LeanFace
from leanface.reconstruction.lineage import is_teacher_of, teacher_of
from leanface.reconstruction.result import Reconstruction
from leanface.reconstruction.sources import Source, pictures
from leanface.report.pictures import BACKING, FaceRow, save_face_sheet
from leanface.runtime.batches import run_in_batches

ORIGINAL = "original"
RECORD = "comparison.json"
MM_PER_M = 1000
COMPARISON = "comparison"
"""The kind of result, see `leanface.files.staged`."""

PICTURE_PX = 224

TIMING_SECONDS = 10.0
"""What measuring two networks may take, however busy the machine is, beyond TIMING_RUNS_MIN runs of each."""

TIMING_RUNS_MIN = 3

logger = logging.getLogger(__name__)


class Pair(NamedTuple):
    """One face as both networks predict it."""

    teacher: Reconstruction
    student: Reconstruction


@contextmanager
def open_teacher(model: str, student: LeanFace, threads: int | None) -> Generator[LeanFace]:
    """Open the network to compare with.

    Args:
        model: a path as for `LeanFace.load`, or "original": the one that the student was compressed from, in PyTorch.
        student: the other network.

    Raises:
        ArtifactError: there is no such network, or the student's original cannot be told or is not here.
    """
    with ExitStack() as stack:
        found = Path(model)
        if model == ORIGINAL:
            found = stack.enter_context(teacher_of(student.model_path, student.image_size))
        teacher = stack.enter_context(LeanFace.load(found, threads=threads))
        if is_teacher_of(found, student.model_path) is False:
            logger.warning("%s is not the network that %s was compressed from.", found, student.model_path)
        if teacher.image_size != student.image_size:
            logger.warning(
                "The networks read crops of different sizes, %d and %d px: their times are not of the same work.",
                *(teacher.image_size, student.image_size),
            )
        yield teacher


def titles(teacher: LeanFace, student: LeanFace) -> tuple[str, str]:
    """Name both networks with their image sizes."""
    return f"original, {teacher.image_size} px", f"compressed, {student.image_size} px"


def compare_all(
    teacher: LeanFace,
    student: LeanFace,
    sources: Sequence[Source],
    folder: Path,
    *,
    every: int = 1,
    limit: int | None = None,
) -> None:
    """Write NAME.png for each photo, a row per face, and comparison.json; frames of videos count as photos.

    What an earlier comparison wrote into the folder goes. All else in it stays, and a picture whose name is taken by it
    is left out.

    Args:
        every: keep every Nth frame of a video, at most `limit` of them.

    Raises:
        ArtifactError: a picture could not be compared; the others are written.
    """
    timings: dict[str, Timing] | None = None
    report: dict[str, Any] = {}
    failed: list[str] = []
    for picture in (picture for source in sources for picture in pictures(source, every, limit)):
        try:
            with staged_beside(folder, COMPARISON, f"{picture.name}.png") as sheet:
                photo = picture.load()
                pairs = read_both(teacher, student, photo)
                timings = timings or network_times(teacher, student, photo)
                rows = [face_row(k, photo, pair, timings) for k, pair in enumerate(pairs, 1)]
                save_face_sheet(rows, sheet, titles(teacher, student))
        except Exception as error:  # concerns this picture alone, whatever it is
            logger.warning("left out %s: %s", picture.name, reason(error))
            failed.append(picture.name)
            continue
        report[picture.name] = [{"mean_distance_mm": distance_mm(pair), "turn_deg": turn_deg(pair)} for pair in pairs]
        logger.info("%s: %s", picture.name, ", ".join(f"{distance_mm(pair):.2f} mm apart" for pair in pairs))
    if timings is None or not report:
        raise ArtifactError("nothing could be compared (see above).")
    times = {name: asdict(timing) for name, timing in timings.items()}
    networks = {"teacher": _about(teacher), "student": _about(student)}
    related = is_teacher_of(teacher.model_path, student.model_path)
    content = {"networks": networks, "student_is_of_teacher": related, "network_batch_1": times, "pictures": report}
    with staged_beside(folder, COMPARISON, RECORD) as record:
        write_json(record, content)
    forget_others(folder, COMPARISON, {RECORD, *(f"{name}.png" for name in report)})
    slow, fast = (timings[name] for name in networks)
    logger.info(
        "network alone, batch 1: %.2f ms and %.2f ms (medians), %s",
        *(slow.latency_ms, fast.latency_ms, speed_text(fast)),
    )
    if failed:
        raise ArtifactError(f"{len(failed)} of {len(failed) + len(report)} pictures could not be compared (see above).")


def _about(lean_face: LeanFace) -> dict[str, Any]:
    return {
        "file": lean_face.model_path.name,
        "precision": lean_face.precision,
        "runtime": lean_face.runtime.name,
        "image_px": lean_face.image_size,
    }


def read_both(
    teacher: LeanFace, student: LeanFace, photo: UInt8[np.ndarray, "H W 3"], faces: Faces = "all"
) -> list[Pair]:
    """Reconstruct the same places by both: the detector looks once. Errors as for `LeanFace.crop`."""
    crops = student.crop(photo, faces)
    own = [teacher.align(photo, crop.detection) for crop in crops]
    predicted = (
        lean_face.decode(lean_face.read(np.stack([crop.crop for crop in cut])), cut)
        for lean_face, cut in ((teacher, own), (student, crops))
    )
    pairs = [Pair(*pair) for pair in zip(*predicted, strict=True)]
    sound = student.sound([pair.student for pair in pairs])
    return [pair for pair in pairs if pair.student in sound]


def network_times(teacher: LeanFace, student: LeanFace, photo: UInt8[np.ndarray, "H W 3"]) -> dict[str, Timing]:
    """Time each network alone, batch 1, on the photo's largest face, in turns, within about TIMING_SECONDS."""
    logger.info("timing both networks, for %.0f s at most", TIMING_SECONDS)
    calls: dict[str, Callable[[], object]] = {}
    for name, network in (("teacher", teacher), ("student", student)):
        images = network.to_input(network.crop(photo, "largest")[0].crop[None])
        calls[name] = lambda network=network, images=images: run_in_batches(network.runtime, images)
    return measure_latency(
        calls,
        warmup=5,
        window=7,
        windows_max=20,
        interval=0.1,
        baselines=dict.fromkeys(calls, "teacher"),
        until=time.monotonic() + TIMING_SECONDS,
        runs_min=TIMING_RUNS_MIN,
    )


def speed_text(timing: Timing) -> str:
    """Say how many times as fast as the other network this one is, and how sure that is."""
    found = timing.speedup
    assert found is not None
    if found.low is None or found.high is None:
        return f"about {found.value:.1f} times as fast ({found.count} windows: too few for an interval)"
    interval = f"95 % interval {found.low:.1f} to {found.high:.1f}"
    return f"{found.value:.1f} times as fast ({interval}{', too wide to compare' if found.too_wide else ''})"


def face_row(number: int, photo: UInt8[np.ndarray, "H W 3"], pair: Pair, timings: dict[str, Timing]) -> FaceRow:
    """Draw the face as both networks predict it, in the place of the detected face, with their distance and times."""
    # Each network's prediction is about its own crop; both show the face in the same place.
    crop = resample(photo, pair.student.alignment.resized(PICTURE_PX))
    first, second = (_on_gray(face) for face in pair)
    times = [f"{timings[name].latency_ms:.3g}" for name in ("teacher", "student")]
    label = f"face {number}\n{distance_mm(pair):.2f} mm apart\n{' / '.join(times)} ms"
    return FaceRow(label, crop / np.float32(255), first, second, np.abs(first - second).mean(-1))


@torch.inference_mode()
def _on_gray(face: Reconstruction) -> Float[np.ndarray, "size size 3"]:
    drawn = Renderer(face.surface.model, PICTURE_PX, supersample=2)(torch.from_numpy(face.coefficients)[None])
    return (drawn.image + BACKING * (1 - drawn.alpha))[0].permute(1, 2, 0).numpy()


def distance_mm(pair: Pair) -> float:
    """Compute the mean distance of the two shapes over the face region, without pose."""
    region = pair.teacher.surface.head.face_mask
    apart = np.linalg.norm(pair.teacher.vertices - pair.student.vertices, axis=1)
    return round(float(apart[region].mean()) * MM_PER_M, 3)


def turn_deg(pair: Pair) -> float:
    """Return the angle between the two poses."""
    trace = float(np.sum(pair.teacher.pose.rotation.astype(float) * pair.student.pose.rotation))
    return round(float(np.degrees(np.arccos(np.clip((trace - 1) / 2, -1, 1)))), 3)
