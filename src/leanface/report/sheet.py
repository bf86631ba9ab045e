"""Draw a grid of pictures: a labeled row for each face, a titled column for each thing shown of it."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from jaxtyping import Float
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure

from leanface.files import staged_file

CELL_INCHES = 1.7
DOTS_PER_INCH = 130
LABEL_INCHES = 1.75
HEADER_INCHES = 0.35
GAP_INCHES = 0.06

DIFFERENCE_GAIN = 5.0
"""Differences are shown this many times as large: a fifth of the color range gives the darkest shade."""


class Cell(NamedTuple):
    """Colors in [0,1], or one channel with how to color it (arguments of `Axes.imshow`)."""

    pixels: Float[np.ndarray, "H W 3"] | Float[np.ndarray, "H W"]
    coloring: dict[str, Any] | None = None


class Row(NamedTuple):
    """One face: its label stands on the left, in lines."""

    label: str
    cells: Sequence[Cell]


def save_sheet(columns: Sequence[str], rows: Sequence[Row], path: Path) -> None:
    """Write the sheet as a PNG; every row has a cell for each column."""
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
        for column, (title, (pixels, coloring)) in enumerate(zip(columns, row.cells, strict=True)):
            left = LABEL_INCHES + column * cell
            axes = figure.add_axes((left / width, bottom / height, CELL_INCHES / width, CELL_INCHES / height))
            axes.imshow(pixels.clip(0, 1), interpolation="nearest", **(coloring or {}))
            axes.set(xticks=[], yticks=[])
            for spine in axes.spines.values():
                spine.set(color="#d0d7de", linewidth=0.6)
            if line == 0:
                axes.set_title(title, fontsize=13, fontweight="bold", pad=6)
    save_figure(figure, path)


def save_figure(figure: Figure, path: Path) -> None:
    """Write a PNG whole or not at all; the same figure gives the same bytes."""
    with staged_file(path) as staging:
        figure.savefig(staging, format="png", metadata={"Software": None})
