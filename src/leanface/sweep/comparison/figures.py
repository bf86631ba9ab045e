"""Pictures of a comparison."""

import math
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
from matplotlib.axes import Axes
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure
from matplotlib.ticker import FormatStrFormatter, MaxNLocator, NullLocator

from leanface.report.sheet import save_figure
from leanface.report.tables import number
from leanface.sweep.comparison.trials import COSTS, Row, front

FRONT, DOMINATED, CHOSEN = "#0969da", "#c4cbd2", "#1a7f37"
ERROR_NAMES = {"vertex_error_mm": "vertex error (mm)", "vertex_to_original_mm": "vertices to the original (mm)"}


def save_fronts(rows: Sequence[Row], error: str, chosen: Row | None, path: Path) -> None:
    """Error over latency, size and MACs; dominated trials are grey, those that fail a gate hollow."""
    figure = _figure(11.5, 3.6)
    for axes, (cost, title) in zip(figure.subplots(1, len(COSTS), sharey=True), COSTS.items(), strict=True):
        known = [row for row in rows if row.measures.get(cost) is not None and row.measures.get(error) is not None]
        best = front(known, error, cost)
        for colour, order, group in (
            (DOMINATED, 2, [row for row in known if row.name not in best]),
            (FRONT, 3, [row for row in known if row.name in best]),
        ):  # at once: 200 trials drawn one by one take seconds
            axes.scatter(
                [row.measures[cost] for row in group], [row.measures[error] for row in group], s=46, zorder=order,
                facecolors=[colour if row.passed else "white" for row in group], edgecolors=colour, linewidths=1.5,
            )  # fmt: skip
        steps = sorted((row.measures[cost], row.measures[error]) for row in known if row.name in best)
        if steps:
            axes.step(*zip(*steps, strict=True), where="post", color=FRONT, linewidth=1, alpha=0.5)
        if chosen is not None and chosen.measures.get(cost) is not None:
            point = chosen.measures[cost], chosen.measures[error]
            axes.scatter(*point, s=180, facecolors="none", edgecolors=CHOSEN, linewidths=2, zorder=4)
        if not known:
            axes.text(0.5, 0.5, "not recorded", transform=axes.transAxes, ha="center", color="#59636e")
            axes.set_xlabel(title)
            axes.set_xticks([])
            continue
        axes.set_xlabel(title)
        axes.xaxis.set_major_locator(MaxNLocator(5))
        axes.xaxis.set_minor_locator(NullLocator())
        axes.xaxis.set_major_formatter(FormatStrFormatter("%g"))
        axes.margins(0.12)
        axes.grid(alpha=0.25)
        axes.spines[["top", "right"]].set_visible(False)
    figure.axes[0].set_ylabel(ERROR_NAMES[error])
    save_figure(figure, path)


def save_heatmaps(rows: Sequence[Row], error: str, keys: tuple[str, str], path: Path) -> None:
    """The mean of error and of latency over two parameters; a combination that no trial has stays empty."""
    across, down = (sorted({row.params[key] for row in rows}, key=_order) for key in keys)
    panels = {error: ERROR_NAMES[error], "latency_ms_p50": "latency (ms, p50)", "ssim": "UV SSIM"}
    figure = _figure(11.5, 1.5 + 0.55 * len(down))
    for axes, (measure, title) in zip(figure.subplots(1, len(panels)), panels.items(), strict=True):
        grid = np.full((len(down), len(across)), np.nan)
        for line, lower in enumerate(down):
            for column, upper in enumerate(across):
                values = [
                    row.measures[measure]
                    for row in rows
                    if (row.params[keys[0]], row.params[keys[1]]) == (upper, lower) and row.measures.get(measure)
                ]
                grid[line, column] = np.mean(values) if values else np.nan
        _heatmap(axes, grid, "viridis" if measure == "ssim" else "viridis_r")
        axes.set_xticks(range(len(across)), [str(value) for value in across])
        axes.set_yticks(range(len(down)), [str(value) for value in down])
        axes.set_xlabel(keys[0])
        axes.set_title(title, fontsize=10)
    figure.axes[0].set_ylabel(keys[1])
    save_figure(figure, path)


def _heatmap(axes: Axes, grid: Any, colours: str) -> None:
    if not np.isnan(grid).all():
        axes.imshow(grid, cmap=colours, aspect="auto")
    low, high = (np.nanmin(grid), np.nanmax(grid)) if not np.isnan(grid).all() else (0.0, 1.0)
    for (line, column), value in np.ndenumerate(grid):
        if not math.isnan(value):
            share = (value - low) / (high - low) if high > low else 0.5
            bright = share > 0.6 if colours == "viridis" else share < 0.4
            text = f"{value:.4f}" if colours == "viridis" else number(float(value))
            axes.text(column, line, text, ha="center", va="center", fontsize=9, color="black" if bright else "white")


def _order(value: Any) -> tuple[bool, float, str]:
    numeric = isinstance(value, int | float)
    return (not numeric, float(value) if numeric else 0.0, str(value))


def _figure(width: float, height: float) -> Figure:
    figure = Figure(figsize=(width, height), dpi=120, layout="constrained", facecolor="white")
    FigureCanvasAgg(figure)
    return figure
