"""`leanface reconstruct --compare`: what two networks read in the same faces, and how long each takes."""

import logging
import tempfile
import time
from collections.abc import Generator, Sequence
from contextlib import contextmanager
from dataclasses import asdict
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import torch
from jaxtyping import Float, UInt8

from leanface import paths
from leanface.bundle import SPEC, new_spec, save_bundle
from leanface.errors import ArtifactError, reason
from leanface.face.render import Renderer
from leanface.files import forget_others, staged_beside, write_json
from leanface.metrics.geometry import MM_PER_DM
from leanface.metrics.latency import Timing, measure_latency
from leanface.networks.packed import load_pretrained
from leanface.photos.alignment import align
from leanface.reconstruction.lean_face import Faces, LeanFace
from leanface.reconstruction.result import Reconstruction
from leanface.reconstruction.sources import Source, pictures
from leanface.report.pictures import BACKING, FaceRow, save_face_sheet
from leanface.runtime.batches import run_in_batches

ORIGINAL = "original"
RECORD = "comparison.json"
COMPARISON = "comparison"
"""The kind of result, see `leanface.files.staged`."""

PICTURE_PX = 224

TIMING_SECONDS = 10.0
"""What measuring two networks may take, however busy the machine is, beyond TIMING_RUNS_MIN runs of each."""

TIMING_RUNS_MIN = 3

logger = logging.getLogger(__name__)


class Pair(NamedTuple):
    """One face as both networks read it."""

    original: Reconstruction
    compressed: Reconstruction


@contextmanager
def open_original(model: str, beside: LeanFace, threads: int | None) -> Generator[LeanFace]:
    """The network to compare with, in PyTorch if it is the original.

    Args:
        model: a path as for `LeanFace.load`, or "original": this project's, or else the one that LeanFace ships.
        beside: the other network; the shipped original reads crops of its size.

    Raises:
        ArtifactError: there is no such network.
    """
    if model != ORIGINAL:
        with LeanFace.load(Path(model), threads=threads) as lean_face:
            yield lean_face
        return
    if (paths.TEACHER / SPEC).is_file():
        with LeanFace.load(paths.TEACHER, threads=threads) as lean_face:
            yield lean_face
        return
    with tempfile.TemporaryDirectory() as folder:
        network, bundle = load_pretrained(beside.image_size), Path(folder) / ORIGINAL
        save_bundle(network, new_spec(network, beside.image_size), bundle)
        with LeanFace.load(bundle, threads=threads) as lean_face:
            yield lean_face


def compare_all(
    original: LeanFace,
    compressed: LeanFace,
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
                pairs = read_both(original, compressed, photo)
                timings = timings or network_times(original, compressed, photo)
                save_face_sheet([face_row(k, photo, pair, timings) for k, pair in enumerate(pairs, 1)], sheet)
        except Exception as error:  # concerns this picture alone, whatever it is
            logger.warning("left out %s: %s", picture.name, reason(error))
            failed.append(picture.name)
            continue
        report[picture.name] = [{"mean_distance_mm": distance_mm(pair), "turn_deg": turn_deg(pair)} for pair in pairs]
        logger.info("%s: %s", picture.name, ", ".join(f"{distance_mm(pair):.2f} mm apart" for pair in pairs))
    if timings is None or not report:
        raise ArtifactError("nothing could be compared (see above).")
    times = {name: asdict(timing) for name, timing in timings.items()}
    networks = {"original": _about(original), "compressed": _about(compressed)}
    content = {"networks": networks, "network_batch_1": times, "pictures": report}
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
    original: LeanFace, compressed: LeanFace, photo: UInt8[np.ndarray, "H W 3"], faces: Faces = "all"
) -> list[Pair]:
    """Both read the same places: the detector looks once. Errors as for `LeanFace.crop`."""
    crops = compressed.crop(photo, faces)
    own = [
        crop._replace(crop=image, alignment=alignment)
        for crop in crops
        for image, alignment in [original.align(photo, crop.detection)]
    ]
    answers = (
        lean_face.decode(lean_face.read(np.stack([crop.crop for crop in cut])), cut)
        for lean_face, cut in ((original, own), (compressed, crops))
    )
    return [Pair(*pair) for pair in zip(*answers, strict=True)]


def network_times(original: LeanFace, compressed: LeanFace, photo: UInt8[np.ndarray, "H W 3"]) -> dict[str, Timing]:
    """Of each network alone, batch 1, on the photo's largest face, in turns, within about TIMING_SECONDS."""
    logger.info("timing both networks, for %.0f s at most", TIMING_SECONDS)
    crops = {"original": original.crop(photo, "largest"), "compressed": compressed.crop(photo, "largest")}
    inputs = {"original": original.to_input(crops["original"][0].crop[None])}
    inputs["compressed"] = compressed.to_input(crops["compressed"][0].crop[None])
    calls = {
        "original": lambda: run_in_batches(original.runtime, inputs["original"]),
        "compressed": lambda: run_in_batches(compressed.runtime, inputs["compressed"]),
    }
    return measure_latency(
        calls,
        warmup=5,
        window=15,
        windows_max=20,
        interval=0.1,
        baselines={"original": "original", "compressed": "original"},
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
    """The face as both networks read it, in the place of the detected face, with their distance and times."""
    # Each network's answer is about its own crop; both show the face in the same place.
    detection = pair.compressed.detection
    assert detection is not None
    crop, _ = align(photo, detection.landmarks, pair.compressed.surface.template, PICTURE_PX)
    first, second = (_on_gray(face) for face in pair)
    times = [f"{timings[name].latency_ms:.3g}" for name in ("original", "compressed")]
    label = f"face {number}\n{distance_mm(pair):.2f} mm apart\n{' / '.join(times)} ms"
    return FaceRow(label, crop / np.float32(255), first, second, np.abs(first - second).mean(-1))


@torch.inference_mode()
def _on_gray(face: Reconstruction) -> Float[np.ndarray, "size size 3"]:
    drawn = Renderer(face.surface.model, PICTURE_PX, supersample=2)(torch.from_numpy(face.coefficients)[None])
    return (drawn.image + BACKING * (1 - drawn.alpha))[0].permute(1, 2, 0).numpy()


def distance_mm(pair: Pair) -> float:
    """Mean distance of the two shapes over the face region, without pose."""
    region = pair.original.surface.model.face_mask.numpy()
    apart = np.linalg.norm(pair.original.vertices - pair.compressed.vertices, axis=1)
    return round(float(apart[region].mean()) * MM_PER_DM, 3)


def turn_deg(pair: Pair) -> float:
    """Angle between the two poses."""
    trace = float(np.sum(pair.original.pose.rotation.astype(float) * pair.compressed.pose.rotation))
    return round(float(np.degrees(np.arccos(np.clip((trace - 1) / 2, -1, 1)))), 3)
