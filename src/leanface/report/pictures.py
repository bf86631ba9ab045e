"""Draw faces side by side: the input, two networks' reconstructions, and where these differ."""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from jaxtyping import Float
from matplotlib.colors import LinearSegmentedColormap

from leanface.report.sheet import DIFFERENCE_GAIN, Cell, Row, save_sheet

BACKING = 0.88
"""Gray behind reconstructions: bright skin stands out from it, and so does dark hair."""

DIFFERENCE_SHADES = LinearSegmentedColormap.from_list("difference", ["#ffffff", "#e5534b", "#4d0007"])


@dataclass(frozen=True)
class FaceRow:
    """One face of a sheet: pictures in [0,1], and the channels' mean difference, not amplified."""

    label: str
    photo: Float[np.ndarray, "H W 3"]
    teacher: Float[np.ndarray, "H W 3"]
    student: Float[np.ndarray, "H W 3"]
    difference: Float[np.ndarray, "H W"]


def save_face_sheet(rows: Sequence[FaceRow], path: Path, titles: tuple[str, str] = ("original", "compressed")) -> None:
    """Write a PNG: a row per face, labeled columns for input, both networks and their difference."""
    columns = ("input", *titles, f"difference \N{MULTIPLICATION SIGN}{DIFFERENCE_GAIN:g}")
    coloring = {"cmap": DIFFERENCE_SHADES, "vmin": 0, "vmax": 1}
    lines = [
        Row(
            row.label,
            [
                *map(Cell, (row.photo, row.teacher, row.student)),
                Cell(row.difference * DIFFERENCE_GAIN, coloring),
            ],
        )
        for row in rows
    ]
    save_sheet(columns, lines, path)
