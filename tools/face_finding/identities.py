"""Measure how well people are told apart by the shape that the network reads, averaged over some frames.

    python -m tools.face_finding.identities docs/results/tracking/identities.json

Rendered people, whom no training has seen, are shown twice each: in another light, other poses and expressions. This is
where `leanface.reconstruction.people.SAME_PERSON_MM` comes from.
"""

import argparse
import itertools
import json
from pathlib import Path

import numpy as np
import torch
from jaxtyping import Float

from leanface.face.coefficients import IDENTITY, LIGHTING
from leanface.face.landmarks import landmarks_image
from leanface.face.morphable_model import load_morphable_model
from leanface.face.render import Renderer
from leanface.files import Json, write_json
from leanface.photos.crops import as_in_photo, crop_face
from leanface.photos.detector import FaceDetection
from leanface.reconstruction import LeanFace
from leanface.reconstruction.people import SAME_PERSON_MM
from leanface.synthesis.synthesis import render_faces, sample_coefficients

PEOPLE, FRAMES, COUNTS = 40, 4, (1, 2, 4)
FIRST_SEED = 50_000
SIZE_PX = 256


def main() -> None:
    """Measure, print, and write the file."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("file", type=Path, help="where the numbers go")
    file: Path = parser.parse_args().file
    torch.set_num_threads(1)
    shapes_mm = _read()
    rows = [_compare(shapes_mm[:, 0, :frames].mean(1), shapes_mm[:, 1, :frames].mean(1)) for frames in COUNTS]
    result = {"people": PEOPLE, "limit_mm": SAME_PERSON_MM, "by_frames": dict(zip(map(str, COUNTS), rows, strict=True))}
    print(json.dumps(result, indent=1))
    write_json(file, result)


def _read() -> Float[np.ndarray, "people 2 frames 80"]:
    """Read the identity of each person in each frame of two clips, in mm."""
    model, people = load_morphable_model(), list[np.ndarray]()
    renderer = Renderer(model, SIZE_PX, supersample=2)
    box = np.array([0.0, 0.0, SIZE_PX, SIZE_PX])
    with LeanFace.load(threads=1) as lean_face:
        for seed in range(FIRST_SEED, FIRST_SEED + PEOPLE):
            generator = torch.Generator().manual_seed(seed)
            coefficients = sample_coefficients(model, 2 * FRAMES, generator, images_per_identity=2 * FRAMES)
            for start in (0, FRAMES):
                coefficients[start : start + FRAMES, LIGHTING] = coefficients[start, LIGHTING].clone()
            images = render_faces(renderer, coefficients, generator, 0.6)
            pixels = (images * 255).round().byte().permute(0, 2, 3, 1).numpy()
            crops = [
                crop_face(frame, FaceDetection(box, points, 1.0), lean_face.surface.template, lean_face.image_size)
                for frame, points in zip(pixels, landmarks_image(model, coefficients, SIZE_PX).numpy(), strict=True)
            ]
            read = as_in_photo(lean_face.read(np.stack([crop.crop for crop in crops])), crops)
            people.append(read[:, IDENTITY] * lean_face.surface.identity_scales_mm)
    return np.stack(people).reshape(PEOPLE, 2, FRAMES, -1)


def _compare(first: Float[np.ndarray, "people 80"], second: Float[np.ndarray, "people 80"]) -> Json:
    """Compare each person's first clip with everyone's second."""
    distances = np.linalg.norm(first[:, None] - second, axis=-1)
    same = np.diag(distances)
    others = np.array([distances[pair] for pair in itertools.permutations(range(len(first)), 2)])
    return {
        "same_median_mm": round(float(np.median(same)), 2),
        "same_max_mm": round(float(same.max()), 2),
        "others_min_mm": round(float(others.min()), 2),
        "others_median_mm": round(float(np.median(others)), 2),
        "same_missed": round(float((same > SAME_PERSON_MM).mean()), 4),
        "others_confused": round(float((others <= SAME_PERSON_MM).mean()), 4),
    }


if __name__ == "__main__":
    main()
