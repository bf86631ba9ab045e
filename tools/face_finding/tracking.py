"""Measure how faces are followed in videos, beside searching every frame.

    python -m tools.face_finding.tracking docs/results/tracking

Rendered heads turn, speak and wander; landmarks, shape and pose are known exactly. Both ways see the same frames.
"""

import argparse
import json
import math
import time
from pathlib import Path
from typing import NamedTuple

import numpy as np
import torch
from jaxtyping import Float, Float32, UInt8

from leanface.face.coefficients import ANGLES, EXPRESSION, IDENTITY, LIGHTING, TRANSLATION
from leanface.face.landmarks import landmarks_image
from leanface.face.morphable_model import MorphableModel, load_morphable_model
from leanface.face.render import Renderer
from leanface.photos.crops import FaceCrop, as_in_photo
from leanface.reconstruction import LeanFace
from leanface.synthesis.synthesis import render_faces, sample_coefficients
from tools.face_finding.measure import SCENE_PX

CLIPS, FRAMES, RATE_HZ = 8, 60, 30
YAW_MAX_RAD = math.radians(50)
WAYS = ("detected in every frame", "followed")


class Clip(NamedTuple):
    """One head that moves. Landmarks in pixels; coefficients as rendered."""

    frames: list[UInt8[np.ndarray, "H W 3"]]
    landmarks: Float[np.ndarray, "frames 5 2"]
    coefficients: Float32[np.ndarray, "frames 257"]


def main() -> None:
    """Measure, and write README.md and tracking.json."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("folder", type=Path, help="where README.md and tracking.json go")
    folder: Path = parser.parse_args().folder
    torch.set_num_threads(1)
    model = load_morphable_model()
    with LeanFace.load(threads=1) as lean_face:
        clips = [rendered_clip(model, seed) for seed in range(CLIPS)]
        rows = {way: _measure(lean_face, model, clips, followed=way == "followed") for way in WAYS}
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "tracking.json").write_text(json.dumps(rows, indent=1) + "\n")
    (folder / "README.md").write_text(_page(rows))


def rendered_clip(model: MorphableModel, seed: int) -> Clip:
    """Render one person between three random poses and expressions, before one background, in one light."""
    keys = sample_coefficients(model, 3, torch.Generator().manual_seed(seed), images_per_identity=3)
    draw = torch.Generator().manual_seed(100 + seed)
    keys[:, ANGLES.start + 1] = (2 * torch.rand(3, generator=draw) - 1) * YAW_MAX_RAD
    low, high = torch.tensor((-0.8, -0.5, -8.0)), torch.tensor((0.8, 0.5, -6.0))
    keys[:, TRANSLATION] = low + (high - low) * torch.rand(3, 3, generator=draw)
    keys[:, LIGHTING] = keys[:1, LIGHTING]
    time_s = torch.linspace(0, 2, FRAMES)[:, None]
    share = (1 - torch.cos(math.pi * (time_s % 1))) / 2
    before = time_s.long().clamp(max=1).squeeze(1)
    share[-1] = 1.0
    coefficients = torch.lerp(keys[before], keys[before + 1], share)
    renderer = Renderer(model, SCENE_PX, supersample=2)
    frames: list[UInt8[np.ndarray, "H W 3"]] = []
    for row in coefficients:
        same = torch.Generator().manual_seed(200 + seed)  # the same background, hair and light in every frame
        (image,) = render_faces(renderer, row[None], same, 0.6)
        frames.append((image * 255).round().byte().permute(1, 2, 0).numpy())
    return Clip(frames, landmarks_image(model, coefficients, SCENE_PX).numpy(), coefficients.numpy())


def _measure(lean_face: LeanFace, model: MorphableModel, clips: list[Clip], *, followed: bool) -> dict[str, float]:
    landmark_errors: list[float] = []
    shape_errors: list[float] = []
    angle_errors: list[float] = []
    steps: list[np.ndarray] = []
    milliseconds: list[float] = []
    people = 0
    for clip in clips:
        tracker = lean_face.tracker()
        crops: list[FaceCrop] = []
        for index, frame in enumerate(clip.frames):
            start = time.thread_time()
            if followed:
                found = lean_face.crop_tracked(frame, index / RATE_HZ, tracker, "largest")
            else:
                found = lean_face.crop(frame, "largest")
            milliseconds.append(1000 * (time.thread_time() - start))
            crops += found
        people += len({crop.detection.number for crop in crops})
        read = as_in_photo(lean_face.read(np.stack([crop.crop for crop in crops])), crops)
        points = np.stack([crop.detection.landmarks for crop in crops])
        radius = np.linalg.norm(clip.landmarks - clip.landmarks.mean(1, keepdims=True), axis=-1).mean(1)
        landmark_errors += (np.linalg.norm(points - clip.landmarks, axis=-1).mean(1) / radius).tolist()
        steps.append(np.diff(points - clip.landmarks, 2, axis=0) / radius[1:-1, None, None])
        shape_errors += _distance_mm(_shape(model, read), _shape(model, clip.coefficients))
        angles = read[:, ANGLES] - clip.coefficients[:, ANGLES]
        angle_errors += np.degrees(np.abs(angles)).mean(1).tolist()
    return {
        "landmarks": round(float(np.median(landmark_errors)), 4),
        "landmarks_p90": round(float(np.quantile(landmark_errors, 0.9)), 4),
        "jitter": round(float(np.sqrt(np.mean(np.concatenate(steps) ** 2))), 4),
        "shape_mm": round(float(np.mean(shape_errors)), 3),
        "angle_deg": round(float(np.mean(angle_errors)), 3),
        "cpu_ms_p50": round(float(np.median(milliseconds)), 2),
        "cpu_ms_mean": round(float(np.mean(milliseconds)), 2),
        "people": people,
    }


def _shape(model: MorphableModel, coefficients: Float32[np.ndarray, "frames 257"]) -> Float32[np.ndarray, "frames V 3"]:
    rows = torch.from_numpy(coefficients)
    return model.vertices(rows[:, IDENTITY], rows[:, EXPRESSION]).numpy()


def _distance_mm(first: Float[np.ndarray, "frames V 3"], second: Float[np.ndarray, "frames V 3"]) -> list[float]:
    return (100 * np.linalg.norm(first - second, axis=-1).mean(1)).tolist()


def _page(rows: dict[str, dict[str, float]]) -> str:
    lines = [
        "# Following faces in videos",
        "",
        f"`python -m tools.face_finding.tracking`: {CLIPS} rendered clips of {FRAMES} frames at {RATE_HZ} Hz and"
        f" {SCENE_PX}x{SCENE_PX} pixels, each of one head that turns by up to 50 degrees, speaks and wanders."
        " *Landmarks*: errors (median / 90 % quantile) in mean distances of the five landmarks from their middle."
        " *Jitter*: the root mean square of their second difference over time, in the same unit. *Shape* and *angles*:"
        " mean errors of what the shipped network reads, not smoothed. *CPU time*: one thread's, of finding and cutting"
        " out a frame's face. *People*: how many numbers were given; there is one head per clip.",
        "",
        "| | landmarks | jitter | shape, mm | angles, degrees | CPU ms, median | mean | people |",
        "|---|---:|---:|---:|---:|---:|---:|---:|",
    ]
    for way, row in rows.items():
        people = f"{row['people']:.0f}" if way == "followed" else "-"
        lines.append(
            f"| {way} | {row['landmarks']:.3f} / {row['landmarks_p90']:.3f} | {row['jitter']:.4f} |"
            f" {row['shape_mm']:.2f} | {row['angle_deg']:.2f} | {row['cpu_ms_p50']:.1f} | {row['cpu_ms_mean']:.1f} |"
            f" {people} |"
        )
    return "\n".join(lines) + "\n"


if __name__ == "__main__":
    main()
