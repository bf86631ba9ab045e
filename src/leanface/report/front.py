"""The networks that were measured for a budget, as a picture: error against latency."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure

from leanface.files import Json
from leanface.report.sheet import save_figure

ALL_COLOR, FRONT_COLOR, CHOSEN_COLOR = "#afb8c1", "#0550ae", "#cf222e"
PANEL_INCHES = (4.6, 3.8)


def save_front(
    points: Sequence[Json], chosen: Json, limits: Json, measures: Sequence[str], path: Path, title: str = "chosen"
) -> None:
    """Write a PNG with a panel for each measure.

    Args:
        points: `leanface.quantization.budget.Point`s as JSON; the first is quantized wholly.
        chosen: one of them.
        limits: the budget as JSON.
        title: of the chosen one.
    """
    width, height = PANEL_INCHES
    figure = Figure(figsize=(width * len(measures), height), dpi=110, facecolor="white", layout="constrained")
    FigureCanvasAgg(figure)
    panels: Any = figure.subplots(1, len(measures), squeeze=False)[0]
    for axes, measure in zip(panels, measures, strict=True):
        at = [(point["latency_ms"], point["errors"][measure]) for point in points]
        axes.scatter(*zip(*at, strict=True), color=ALL_COLOR, s=22, label="measured")
        axes.scatter(*at[0], color="black", s=44, marker="s", label="all in INT8")
        front = [each for each in sorted(at) if each[1] == min(error for ms, error in at if ms <= each[0])]
        line = {"color": FRONT_COLOR, "marker": ".", "drawstyle": "steps-post", "label": "not beaten in both"}
        axes.plot(*zip(*front, strict=True), **line)
        where = chosen["latency_ms"], chosen["errors"][measure]
        axes.scatter(*where, s=120, facecolor="none", edgecolor=CHOSEN_COLOR, linewidth=2, label=title)
        for limit, line in ((limits["error"].get(measure), axes.axhline), (limits["latency"], axes.axvline)):
            if limit is not None:
                line(limit, color=CHOSEN_COLOR, linestyle="--", linewidth=1)
        axes.set_xlabel("latency of one image (ms)")
        axes.set_ylabel(measure)
    panels[0].legend(fontsize=8)
    save_figure(figure, path)
