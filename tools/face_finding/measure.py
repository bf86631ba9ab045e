"""Measure how faces are found: how many, how exactly, how steadily, how fast, and how many are misread.

    python -m tools.face_finding.measure docs/results/detection

MTCNN alone, as LeanFace used it before, beside LeanFace's detector. Rendered faces have exact landmarks. Errors are in
mean distances of a face's five landmarks from their middle, about three quarters of the distance between the eyes.
"""

import argparse
import json
import math
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import torch
from jaxtyping import Float, UInt8
from PIL import Image

from leanface.errors import LeanFaceError
from leanface.face.coefficients import ANGLES, TRANSLATION
from leanface.face.landmarks import landmarks_image
from leanface.face.morphable_model import load_morphable_model
from leanface.face.render import Renderer
from leanface.photos.alignment import fit
from leanface.photos.crops import FaceCrop, crop_face
from leanface.photos.detector import FaceDetection, FaceDetector
from leanface.photos.load import load_photo
from leanface.photos.mtcnn import Mtcnn
from leanface.reconstruction import LeanFace
from leanface.synthesis.synthesis import render_faces, sample_coefficients

Image8 = UInt8[np.ndarray, "H W 3"]
Finder = Callable[[Image8], Sequence[FaceDetection]]

SCENE_PX = 512
DEPTH_DM = (-8.0, -6.0)
"""How far the heads are behind the place for which crops are framed: a whole head and shoulders are seen."""

RIGHT = 0.4
"""Landmarks are found, and faces read rightly, within this error."""

YAWS_DEG = ((0, 30), (30, 50), (50, 70), (70, 90))
ROLLS_DEG = (0, 30, 60, 90, 135, 180)
SHRUNK = 3
"""Small faces: the scene shrunk by this in a picture of its former size."""

FACES = 40


class Scene(NamedTuple):
    """A picture of one face, and where its landmarks are (px)."""

    image: Image8
    landmarks: Float[np.ndarray, "5 2"]


def main() -> None:
    """Measure everything, and write README.md and detection.json."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("folder", type=Path, help="where README.md and detection.json go")
    folder: Path = parser.parse_args().folder
    torch.set_num_threads(1)
    finders = {"MTCNN alone": _mtcnn_alone(), "LeanFace": FaceDetector().detect}
    with LeanFace.load(threads=1) as lean_face:
        results: dict[str, Any] = {
            "renders": [_renders(finders, lean_face, yaw, roll, small) for yaw, roll, small in _conditions()],
            "jitter": {name: _jitter(find, lean_face) for name, find in finders.items()},
        }
    results["cpu_ms"] = {name: _times(find) for name, find in finders.items()}
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "detection.json").write_text(json.dumps(results, indent=1) + "\n")
    (folder / "README.md").write_text(_page(results))


def _mtcnn_alone() -> Finder:
    mtcnn = Mtcnn()

    def find(image: Image8) -> list[FaceDetection]:
        found = zip(*mtcnn.find(image, 40), strict=True)
        faces = [FaceDetection(box - 0.5, points - 0.5, float(score)) for box, points, score in found]
        return sorted(faces, key=lambda face: float(np.prod(face.box[2:] - face.box[:2])), reverse=True)

    return find


def _conditions() -> list[tuple[tuple[int, int], int, bool]]:
    upright = [(yaw, 0, small) for small in (False, True) for yaw in YAWS_DEG]
    return upright + [((0, 50), roll, small) for small in (False, True) for roll in ROLLS_DEG[1:]]


def scenes(count: int, seed: int, yaw_deg: tuple[int, int], roll_deg: float, small: bool) -> list[Scene]:
    """Render heads with shoulders before backgrounds, each turned by about `roll_deg`."""
    generator = torch.Generator().manual_seed(seed)
    model = load_morphable_model()
    coefficients = sample_coefficients(model, count, generator)
    side = torch.where(torch.rand(count, generator=generator) < 0.5, -1.0, 1.0)
    low, high = (math.radians(yaw) for yaw in yaw_deg)
    coefficients[:, ANGLES.start + 1] = side * (low + (high - low) * torch.rand(count, generator=generator))
    place = torch.rand(count, 3, generator=generator)
    near, far = DEPTH_DM
    coefficients[:, TRANSLATION] = torch.stack(
        [1.6 * place[:, 0] - 0.8, place[:, 1] - 0.5, near + (far - near) * place[:, 2]], 1
    )
    landmarks = landmarks_image(model, coefficients, SCENE_PX).numpy()
    renderer = Renderer(model, SCENE_PX, supersample=2)
    random = np.random.default_rng(seed)
    made: list[Scene] = []
    for start in range(0, count, 8):
        images = render_faces(renderer, coefficients[start : start + 8], generator, 0.6)
        for image, points in zip(images, landmarks[start : start + 8], strict=True):
            pixels = (image * 255).round().byte().permute(1, 2, 0).numpy()
            scene = _turned(Scene(pixels, points), roll_deg + (random.uniform(-15, 15) if roll_deg else 0))
            made.append(_shrunk(scene) if small else scene)
    return made


def _turned(scene: Scene, angle_deg: float) -> Scene:
    """Turned counterclockwise about its middle."""
    cos, sin, middle = math.cos(math.radians(angle_deg)), math.sin(math.radians(angle_deg)), (SCENE_PX - 1) / 2
    image = Image.fromarray(scene.image).rotate(angle_deg, Image.Resampling.BICUBIC, fillcolor=(128, 128, 128))
    x, y = (scene.landmarks - middle).T
    return Scene(np.asarray(image), np.stack([x * cos + y * sin, y * cos - x * sin], 1) + middle)


def _shrunk(scene: Scene) -> Scene:
    side = SCENE_PX // SHRUNK
    image = np.full((SCENE_PX, SCENE_PX, 3), 128, np.uint8)
    small = Image.fromarray(scene.image).resize((side, side), Image.Resampling.LANCZOS)
    corner = SCENE_PX // 4
    image[corner : corner + side, corner : corner + side] = np.asarray(small)
    return Scene(image, (scene.landmarks + 0.5) * side / SCENE_PX - 0.5 + corner)


def _error(points: Float[np.ndarray, "5 2"], truth: Float[np.ndarray, "5 2"]) -> float:
    radius = np.linalg.norm(truth - truth.mean(0), axis=1).mean()
    return float(np.linalg.norm(points - truth, axis=1).mean() / radius)


def _renders(
    finders: dict[str, Finder], lean_face: LeanFace, yaw_deg: tuple[int, int], roll_deg: float, small: bool
) -> dict[str, Any]:
    """One row: faces found, their landmarks' errors, heads read rightly and wrongly."""
    made = scenes(FACES, 17 + yaw_deg[0], yaw_deg, roll_deg, small)
    row: dict[str, Any] = {"yaw_deg": yaw_deg, "roll_deg": roll_deg, "small": small, "faces": len(made)}
    for name, find in finders.items():
        errors: list[float] = []
        right = wrong = 0
        for scene in made:
            found = find(scene.image)
            errors += [error for face in found if (error := _error(face.landmarks, scene.landmarks)) < RIGHT][:1]
            for points in _read(lean_face, scene.image, found, check=name == "LeanFace"):
                if _error(points, scene.landmarks) < RIGHT:
                    right += 1
                else:
                    wrong += 1
        quantiles = [round(float(q), 3) for q in np.quantile(errors, (0.5, 0.9))] if errors else None
        row[name] = {"found": len(errors), "error_p50_p90": quantiles, "right": right, "wrong": wrong}
    return row


def _read(
    lean_face: LeanFace, image: Image8, found: Sequence[FaceDetection], *, check: bool
) -> list[Float[np.ndarray, "5 2"]]:
    """Landmarks of the heads that the network reads; without `check` as before: nothing is turned or refused."""
    points: list[Float[np.ndarray, "5 2"]] = []
    for face in found:
        try:
            if check:
                crop = lean_face.align(image, face)
            else:
                fit(face.landmarks, lean_face.surface.template)  # refuses what does not look upright
                crop = _as_it_is(lean_face, image, face)
            faces = lean_face.decode(lean_face.read(crop.crop[None]), [crop])
            points += [face.landmarks for face in (lean_face.sound(faces) if check else faces)]
        except LeanFaceError:
            continue
    return points


def _as_it_is(lean_face: LeanFace, image: Image8, face: FaceDetection) -> FaceCrop:
    from leanface.photos.alignment import align

    crop, alignment = align(image, face.landmarks, lean_face.surface.template, lean_face.image_size)
    return FaceCrop(crop, alignment, face)


def _jitter(find: Finder, lean_face: LeanFace) -> dict[str, float]:
    """How much crops and readings of the same two portraits vary when they are shifted, scaled and noisy."""
    random = np.random.default_rng(3)
    places: list[np.ndarray] = []
    scales: list[np.ndarray] = []
    shapes: list[float] = []
    for name in ("astronaut", "grace_hopper"):
        photo = Image.fromarray(load_photo(name))
        crops: list[FaceCrop] = []
        framings: list[tuple[float, float, float]] = []
        for _ in range(30):
            factor, dx, dy = random.uniform(0.8, 1.25), random.uniform(0, 8), random.uniform(0, 8)
            size = round(photo.width * factor), round(photo.height * factor)
            moved = photo.resize(size, Image.Resampling.BICUBIC, box=(dx, dy, photo.width, photo.height))
            noisy = np.asarray(moved, np.float32) + random.normal(0, 4, (size[1], size[0], 3))
            image = noisy.round().clip(0, 255).astype(np.uint8)
            crop = crop_face(image, find(image)[0], lean_face.surface.template, lean_face.image_size)
            # The crop's middle and side in the photo as it was.
            step = np.array([(photo.width - dx) / size[0], (photo.height - dy) / size[1]])
            middle = crop.alignment.photo_from_crop(np.full(2, (crop.alignment.size - 1) / 2)) * step + (dx, dy)
            crops.append(crop)
            framings.append((*middle.tolist(), crop.alignment.size / crop.alignment.scale * step.mean()))
        places.append(np.std(framings, axis=0)[:2] / np.mean(framings, axis=0)[2])
        scales.append(np.std(framings, axis=0)[2] / np.mean(framings, axis=0)[2])
        read = lean_face.decode(lean_face.read(np.stack([crop.crop for crop in crops])), crops)
        vertices = np.stack([face.vertices for face in read])
        shapes.append(float(np.linalg.norm(vertices - vertices.mean(0), axis=-1).mean()) * 1000)
    return {
        "place_percent": round(100 * float(np.mean(places)), 3),
        "scale_percent": round(100 * float(np.mean(scales)), 3),
        "shape_mm": round(float(np.mean(shapes)), 3),
    }


def _times(find: Finder) -> dict[str, float]:
    """CPU time of one thread, the median of several runs."""
    portrait = load_photo("grace_hopper")
    pictures = {
        "portrait of 512x600": portrait,
        "group of 6000x4000 with seven faces": group(),
        "empty photo of 12000x9000": np.full((9000, 12000, 3), 120, np.uint8),
    }
    times: dict[str, float] = {}
    for name, picture in pictures.items():
        runs: list[float] = []
        for _ in range(15 if picture is portrait else 3):
            start = time.thread_time()
            find(picture)
            runs.append(1000 * (time.thread_time() - start))
        times[name] = round(float(np.median(runs)), 1)
    return times


def group() -> Image8:
    """Paste one portrait of about 800 pixels and six of about 120 before a blurred background of 6000x4000."""
    colors = np.random.default_rng(1).integers(60, 200, (40, 60, 3)).astype(np.uint8)
    wall = Image.fromarray(colors).resize((6000, 4000), Image.Resampling.BICUBIC)
    large, small = (Image.fromarray(load_photo(name)) for name in ("grace_hopper", "astronaut"))
    wall.paste(large.resize((1862, 2182), Image.Resampling.LANCZOS), (3500, 600))
    head = small.crop((130, 0, 330, 260)).resize((240, 312), Image.Resampling.LANCZOS)
    for place in ((100, 100), (900, 300), (1800, 200), (300, 2000), (1300, 2400), (2300, 2900)):
        wall.paste(head, place)
    return np.asarray(wall)


def _page(results: dict[str, Any]) -> str:
    names = list(results["cpu_ms"])
    lines = [
        "# Finding faces",
        "",
        f"`python -m tools.face_finding.measure`; {FACES} rendered faces a row, whose landmarks are known exactly."
        f" *Found*: landmarks within {RIGHT} of the mean distance of the five from their middle. *Error*: median and"
        " 90 % quantile of those, in the same unit. *Right* and *wrong*: heads that the shipped network reads from what"
        " was found, by the same limit. MTCNN alone is how LeanFace found faces before:"
        " nothing was turned, nothing refused.",
        "",
        "| faces | " + " | ".join(f"{name}: found | error | right | wrong" for name in names) + " |",
        "|---|" + "---:|" * 4 * len(names),
    ]
    for row in results["renders"]:
        what = f"{'small, ' if row['small'] else ''}yaw {row['yaw_deg'][0]} to {row['yaw_deg'][1]}"
        what += f", turned by {row['roll_deg']}" if row["roll_deg"] else ""
        cells = [what]
        for name in names:
            cell = row[name]
            error = " / ".join(f"{q:.3f}" for q in cell["error_p50_p90"] or ()) or "-"
            cells += [str(cell["found"]), error, str(cell["right"]), str(cell["wrong"])]
        lines.append("| " + " | ".join(cells) + " |")
    lines += [
        "",
        "The same two portraits, shifted, scaled by 0.8 to 1.25 and with noise of 4 levels: standard deviations of the"
        " crop's place and size (% of its side) and of the shape that is read.",
        "",
        "| | place, % | size, % | shape, mm |",
        "|---|---:|---:|---:|",
    ]
    lines += [
        f"| {n} | {j['place_percent']} | {j['scale_percent']} | {j['shape_mm']} |" for n, j in results["jitter"].items()
    ]
    lines += ["", "CPU time of one thread, ms (a busy machine adds half and more to these):", ""]
    lines += ["| | " + " | ".join(names) + " |", "|---|" + "---:|" * len(names)]
    for picture in next(iter(results["cpu_ms"].values())):
        lines.append(f"| {picture} | " + " | ".join(f"{results['cpu_ms'][name][picture]:.0f}" for name in names) + " |")
    lines += [
        "",
        "In a portrait, with one sure face over a third of the photo's longer side or more, LeanFace looks for others"
        " only down to a third of its size, unless a size is asked for: smaller bystanders, of which no row has any,"
        " are left out.",
    ]
    return "\n".join(lines) + "\n"


if __name__ == "__main__":
    main()
