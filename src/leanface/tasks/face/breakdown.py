"""Draw errors by yaw and by image size as one picture."""

from pathlib import Path
from typing import Any

from matplotlib.axes import Axes
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure

from leanface.report.sheet import save_figure
from leanface.tasks.face.accuracy import Accuracy, Row

PANELS = {
    "truth_vertex_mm": "vertex error (mm)",
    "truth_rotation_deg": "rotation error (degrees)",
    "truth_landmark_nme": "landmark error (NME, %)",
    "truth_ssim_face": "re-rendered face (SSIM)",
}
YAW_COLOR, SIZE_COLOR = "#0969da", "#8250df"
FEW = 10
"""Means over fewer faces are drawn hollow."""


def save_breakdown(accuracy: Accuracy, path: Path) -> None:
    """Write a PNG: a column per measure, by yaw above and by size below; means over faces with 95 % intervals."""
    figure = Figure(figsize=(12, 5.2), dpi=120, layout="constrained", facecolor="white")
    FigureCanvasAgg(figure)
    grid: Any = figure.subplots(2, len(PANELS), sharey="col")
    yaws = [f"{row['yaw_deg']}°" for row in accuracy.by_yaw]
    sizes = [f"{row['size_px']} px" for row in accuracy.by_size]
    for column, (measure, title) in enumerate(PANELS.items()):
        by_yaw, by_size = grid[:, column]
        by_yaw.set_title(title, fontsize=11)
        _points(by_yaw, yaws, accuracy.by_yaw, measure, YAW_COLOR)
        _points(by_size, sizes, accuracy.by_size, measure, SIZE_COLOR)
        if measure != "truth_ssim_face":
            by_yaw.set_ylim(0, 1.08 * by_yaw.get_ylim()[1])
    grid[0, 0].set_ylabel("by yaw")
    grid[1, 0].set_ylabel("by image size")
    figure.supxlabel(
        f"Means over n faces with 95 % intervals, hollow where n is below {FEW}. "
        "Yaw is to either side; images of different sizes show the same faces.",
        fontsize=9,
    )
    save_figure(figure, path)


def _points(axes: Axes, labels: list[str], rows: list[Row], measure: str, color: str) -> None:
    """Return a mean, its interval and its number of faces for each row that the measure is defined in."""
    for label, row in zip(labels, rows, strict=True):
        found = row["measures"][measure]
        if found is None:
            continue
        mean, count = found["mean"], found["count"]
        axes.errorbar(
            f"{label}\nn = {count}",
            mean,
            [[mean - found["low"]], [found["high"] - mean]],
            fmt="o",
            markersize=7,
            color=color,
            markerfacecolor="white" if count < FEW else color,
            capsize=4,
        )
    axes.margins(x=0.2)
    axes.tick_params(axis="x", labelsize=8.5)
    axes.grid(axis="y", alpha=0.25)
    axes.spines[["top", "right"]].set_visible(False)
