"""Errors by yaw and by image size, as one picture."""

from pathlib import Path
from typing import Any

from matplotlib.axes import Axes
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure

from leanface.metrics.accuracy import Accuracy, Row
from leanface.report.sheet import save_figure

PANELS = {
    "vertex_mm": "vertices (mm)",
    "rotation_deg": "rotation (degrees)",
    "landmark_nme": "landmarks (NME, %)",
    "ssim_face": "re-rendered SSIM, face",
}
YAW_COLOUR, SIZE_COLOUR = "#0969da", "#8250df"


def save_breakdown(accuracy: Accuracy, path: Path) -> None:
    """Write a PNG: a column per measure, by yaw above and by size below; bars are means with 95 % intervals."""
    figure = Figure(figsize=(12, 5.2), dpi=120, layout="constrained", facecolor="white")
    FigureCanvasAgg(figure)
    grid: Any = figure.subplots(2, len(PANELS), sharey="col")
    for column, (measure, title) in enumerate(PANELS.items()):
        yaw, size = grid[0, column], grid[1, column]
        yaw.set_title(title, fontsize=11)
        _bars(yaw, [f"{row['yaw_deg']}°" for row in accuracy.by_yaw], accuracy.by_yaw, measure, YAW_COLOUR)
        _bars(size, [f"{row['size_px']} px" for row in accuracy.by_size], accuracy.by_size, measure, SIZE_COLOUR)
        if measure.startswith("ssim"):
            yaw.set_ylim(0.8 if _lowest(accuracy, measure) > 0.8 else 0, 1)
    grid[0, 0].set_ylabel("by yaw, to either side")
    grid[1, 0].set_ylabel("by image size, the same faces")
    save_figure(figure, path)


def _bars(axes: Axes, labels: list[str], rows: list[Row], measure: str, colour: str) -> None:
    """One bar per row that the measure is defined in, and how many faces it stands for."""
    found = [(label, row["measures"][measure]) for label, row in zip(labels, rows, strict=True)]
    defined = [(label, estimate) for label, estimate in found if estimate is not None]
    heights = [estimate["mean"] for _, estimate in defined]
    reach = [
        [estimate["mean"] - estimate["low"] for _, estimate in defined],
        [estimate["high"] - estimate["mean"] for _, estimate in defined],
    ]
    names = [f"{label}\n{estimate['count']} faces" for label, estimate in defined]
    axes.bar(names, heights, 0.65, yerr=reach, color=colour, ecolor="#24292f", capsize=3)
    axes.tick_params(axis="x", labelsize=8.5)
    axes.grid(axis="y", alpha=0.25)
    axes.set_axisbelow(True)
    axes.spines[["top", "right"]].set_visible(False)


def _lowest(accuracy: Accuracy, measure: str) -> float:
    """Least lower end of any interval."""
    rows = (row["measures"][measure] for row in (*accuracy.by_yaw, *accuracy.by_size))
    return min((estimate["low"] for estimate in rows if estimate is not None), default=0.0)
