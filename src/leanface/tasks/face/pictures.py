"""Draw what two networks make of the same faces, and where they differ."""

from collections.abc import Mapping
from pathlib import Path

import numpy as np
import torch
from jaxtyping import Float
from torch import Tensor

from leanface.face.render import Renderer
from leanface.report.pictures import BACKING, FaceRow, save_face_sheet
from leanface.tasks.face.evaluation import Comparison

WORST_COUNT = 8
"""How many of the faces least like the teacher's are shown."""


def save_comparison(renderer: Renderer, names: Mapping[int, str], compared: Comparison, path: Path) -> None:
    """Render some of the faces compared as a labeled sheet.

    Args:
        names: of the faces to show, by their index.
    """
    chosen = list(names)
    photos = compared.images[chosen].permute(0, 2, 3, 1).numpy()
    pictures = [_on_gray(renderer, each[chosen]) for each in (compared.teacher, compared.student)]
    ssim, error_mm = compared.similarity["ssim"], compared.similarity["teacher_posed_mm"]
    rows = [
        FaceRow(
            f"{name.replace('_', ' ')}\nUV SSIM {ssim[index]:.3f}\n{error_mm[index]:.2f} mm",
            photo,
            teacher,
            student,
            np.abs(teacher - student).mean(axis=-1),
        )
        for (index, name), photo, teacher, student in zip(names.items(), photos, *pictures, strict=True)
    ]
    save_face_sheet(rows, path)


def save_comparisons(renderer: Renderer, compared: Comparison, count: int, folder: Path) -> None:
    """Write the first test faces as faces.png, and those least like the teacher's as worst.png."""
    least_alike = np.argsort(compared.similarity["ssim"])[:WORST_COUNT]
    for name, indices in (("faces", range(min(count, len(compared.images)))), ("worst", map(int, least_alike))):
        save_comparison(renderer, {index: f"test face {index}" for index in indices}, compared, folder / f"{name}.png")


@torch.inference_mode()
def _on_gray(renderer: Renderer, coefficients: Float[Tensor, "batch 257"]) -> Float[np.ndarray, "batch H W 3"]:
    rendering = renderer(coefficients)
    return (rendering.image + BACKING * (1 - rendering.alpha)).permute(0, 2, 3, 1).numpy()
