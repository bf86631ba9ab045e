"""What a network reads in each picture, as a picture: the shape alone, with its skin, and laid over the input."""

import copy
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import NamedTuple

import numpy as np
import torch
from jaxtyping import Float
from torch import Tensor

from leanface.face.coefficients import LIGHTING, split
from leanface.face.geometry import BANDS
from leanface.face.render import Renderer, Rendering
from leanface.report.sheet import Cell, Row, save_sheet
from leanface.synthesis.dataset import FaceDataset
from leanface.tasks.face.accuracy import Accuracy
from leanface.tasks.face.photos import PhotoReadings

COLUMNS = ("input", "shape", "with skin", "over the input")
BACKING = 0.88
"""Gray behind readings."""

CLAY = 0.75
STUDIO_LIGHT = (0.48, -0.18, 0.3, 0.07, 0.0, 0.0, 0.0, 0.0, 0.0)
"""White lighting that shapes show in, from the front, the upper left and all around, by band (see `sh_basis`)."""


class Shown(NamedTuple):
    """One row: the input, and what was read in it."""

    label: str
    image: Float[Tensor, "3 size size"]
    reading: Float[Tensor, "257"]


def shown_faces(test: FaceDataset, accuracy: Accuracy, count: int) -> list[Shown]:
    """Test faces from the most frontal to the most turned, in equal steps of rank, with their errors."""
    yaw_deg = torch.rad2deg(split(accuracy.truth).angles_rad[:, 1])
    ranks = torch.linspace(0, len(test) - 1, min(count, len(test))).round().long()
    indices = [int(index) for index in yaw_deg.abs().argsort()[ranks]]
    errors = accuracy.samples
    return [
        Shown(
            f"test face {index}\nyaw {round(float(yaw_deg[index]))}°\n{errors['truth_vertex_mm'][index]:.2f} mm, "
            f"{errors['truth_rotation_deg'][index]:.1f}°\nSSIM {errors['truth_ssim_face'][index]:.3f}",
            test[index].images,
            accuracy.readings[index],
        )
        for index in indices
    ]


def shown_photos(
    photos: Mapping[str, Float[Tensor, "3 size size"]], readings: PhotoReadings, count: int
) -> list[Shown]:
    """Describe the first photos, with what can be said without truth."""
    measures = readings.samples
    yaw_deg = torch.rad2deg(split(readings.coefficients).angles_rad[:, 1])
    return [
        Shown(
            f"{name.replace('_', ' ')}\nyaw {round(float(yaw_deg[index]))}°, read\n"
            f"landmarks {measures['landmark_nme'][index]:.1f} %\n"
            f"jitter {measures['jitter_mm'][index]:.2f} mm\njitter {measures['jitter_deg'][index]:.1f}°",
            photo,
            readings.coefficients[index],
        )
        for index, (name, photo) in enumerate(list(photos.items())[:count])
    ]


@torch.inference_mode()
def save_reconstructions(renderer: Renderer, shown: Sequence[Shown], path: Path) -> None:
    """Write one PNG with a row for each; `renderer` is of the inputs' size."""
    images = torch.stack([row.image for row in shown])
    readings = torch.stack([row.reading for row in shown])
    clay, rendering = _clay(renderer, readings), renderer(readings)
    backing = torch.full_like(images, BACKING)
    columns = (images, _over(clay, backing), _over(rendering, backing), _over(rendering, images))
    pixels: list[Float[np.ndarray, "count H W 3"]] = [column.permute(0, 2, 3, 1).numpy() for column in columns]
    rows = [Row(row.label, [Cell(column[line]) for column in pixels]) for line, row in enumerate(shown)]
    save_sheet(COLUMNS, rows, path)


def _clay(renderer: Renderer, readings: Float[Tensor, "batch 257"]) -> Rendering:
    """Draw the readings' shape and pose in gray clay and studio light."""
    model = copy.deepcopy(renderer.model)
    model.mean_albedo.fill_(CLAY)
    model.albedo_basis.zero_()
    lit = readings.clone()
    lit[:, LIGHTING] = torch.tensor(STUDIO_LIGHT).view(BANDS, 1).expand(BANDS, 3).flatten()
    return Renderer(model, renderer.size, renderer.supersample)(lit)


def _over(rendering: Rendering, under: Float[Tensor, "batch 3 size size"]) -> Float[Tensor, "batch 3 size size"]:
    return rendering.image + under * (1 - rendering.alpha)
