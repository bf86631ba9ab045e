"""Faces side by side: what the networks saw, what each of the two reads in it, and where these differ."""

import os
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from jaxtyping import Float
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.colors import LinearSegmentedColormap
from matplotlib.figure import Figure
from torch import Tensor

from leanface.face.render import Renderer
from leanface.metrics.evaluation import Comparison

DIFFERENCE_GAIN = 5.0
"""Differences are shown this many times as large: a fifth of the colour range gives the darkest shade."""

CELL_INCHES = 1.7
DOTS_PER_INCH = 130
LABEL_INCHES = 1.6
HEADER_INCHES = 0.35
GAP_INCHES = 0.06


BACKING = 0.88
"""Grey behind reconstructions: bright skin stands out from it, and so does dark hair."""

DIFFERENCE_SHADES = LinearSegmentedColormap.from_list("difference", ["#ffffff", "#e5534b", "#4d0007"])


@dataclass(frozen=True)
class FaceRow:
    """One face of a sheet: pictures in [0,1], and the channels' mean difference, not amplified."""

    label: str
    photo: Float[np.ndarray, "H W 3"]
    original: Float[np.ndarray, "H W 3"]
    compressed: Float[np.ndarray, "H W 3"]
    difference: Float[np.ndarray, "H W"]


def save_comparison(renderer: Renderer, names: Sequence[str], compared: Comparison, path: Path) -> None:
    """Render the first faces compared, one for each name, as a labelled sheet."""
    count = len(names)
    photos = compared.images[:count].permute(0, 2, 3, 1).numpy()
    pictures = [_on_grey(renderer, answer[:count]) for answer in (compared.original, compared.compressed)]
    ssim, error_mm = compared.likeness["ssim"], compared.likeness["original_posed_mm"]
    rows = [
        FaceRow(
            f"{names[index].replace('_', ' ')}\nUV SSIM {ssim[index]:.3f}\n{error_mm[index]:.2f} mm",
            photos[index],
            original,
            compressed,
            np.abs(original - compressed).mean(axis=-1),
        )
        for index, (original, compressed) in enumerate(zip(*pictures, strict=True))
    ]
    save_face_sheet(rows, path)


def save_face_sheet(rows: Sequence[FaceRow], path: Path) -> None:
    """Write a PNG: a row per face, labelled columns for input, original, compressed and difference."""
    columns = ("input", "original", "compressed", f"difference \N{MULTIPLICATION SIGN}{DIFFERENCE_GAIN:g}")
    cell = CELL_INCHES + GAP_INCHES
    width, height = LABEL_INCHES + len(columns) * cell, HEADER_INCHES + len(rows) * cell
    figure = Figure(figsize=(width, height), dpi=DOTS_PER_INCH, facecolor="white")
    FigureCanvasAgg(figure)
    for line, row in enumerate(rows):
        bottom = height - HEADER_INCHES - (line + 1) * cell
        figure.text(
            (LABEL_INCHES - 0.1) / width, (bottom + CELL_INCHES / 2) / height, row.label,
            ha="right", va="center", fontsize=12, linespacing=1.35,
        )  # fmt: skip
        shades: list[tuple[np.ndarray, dict[str, Any]]] = [
            (row.photo, {}),
            (row.original, {}),
            (row.compressed, {}),
            (row.difference * DIFFERENCE_GAIN, {"cmap": DIFFERENCE_SHADES, "vmin": 0, "vmax": 1}),
        ]
        for column, (pixels, options) in enumerate(shades):
            left = LABEL_INCHES + column * cell
            axes = figure.add_axes((left / width, bottom / height, CELL_INCHES / width, CELL_INCHES / height))
            axes.imshow(pixels.clip(0, 1), interpolation="nearest", **options)
            axes.set(xticks=[], yticks=[])
            for spine in axes.spines.values():
                spine.set(color="#d0d7de", linewidth=0.6)
            if line == 0:
                axes.set_title(columns[column], fontsize=13, fontweight="bold", pad=6)
    save_figure(figure, path)


def save_figure(figure: Figure, path: Path) -> None:
    """Write a PNG whole or not at all; the same figure gives the same bytes."""
    path.parent.mkdir(parents=True, exist_ok=True)
    staging = path.with_name(f".{path.name}")
    figure.savefig(staging, format="png", metadata={"Software": None})
    os.replace(staging, path)


@torch.inference_mode()
def _on_grey(renderer: Renderer, coefficients: Float[Tensor, "batch 257"]) -> Float[np.ndarray, "batch H W 3"]:
    rendering = renderer(coefficients)
    return (rendering.image + BACKING * (1 - rendering.alpha)).permute(0, 2, 3, 1).numpy()
