"""Draw the pictures of a comparison."""

import math
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
from matplotlib.axes import Axes
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure
from matplotlib.ticker import FormatStrFormatter, MaxNLocator, NullLocator

from leanface.catalog import MEASURES, Measure
from leanface.report.sheet import save_figure
from leanface.sweep.comparison.trials import COSTS, TrialResult, front

FRONT, DOMINATED, CHOSEN = "#0969da", "#c4cbd2", "#1a7f37"


def save_fronts(trials: Sequence[TrialResult], error: str, chosen: TrialResult | None, path: Path) -> None:
    """Draw the error over each cost; dominated trials are gray, those that fail a gate hollow."""
    figure = _figure(11.5, 3.6)
    for axes, cost in zip(figure.subplots(1, len(COSTS), sharey=True), COSTS, strict=True):
        axes.set_xlabel(MEASURES[cost].heading)
        points = {
            trial.name: (price / MEASURES[cost].scale, mistake / MEASURES[error].scale, trial.passed)
            for trial in trials
            if (price := trial.value(cost)) is not None and (mistake := trial.value(error)) is not None
        }
        if not points:
            axes.text(0.5, 0.5, "not recorded", transform=axes.transAxes, ha="center", color="#59636e")
            axes.set_xticks([])
            continue
        best = front(trials, error, cost)
        for color, order, group in (
            (DOMINATED, 2, [point for name, point in points.items() if name not in best]),
            (FRONT, 3, [point for name, point in points.items() if name in best]),
        ):  # at once: 200 trials drawn one by one take seconds
            axes.scatter(
                [price for price, _, _ in group], [mistake for _, mistake, _ in group], s=46, zorder=order,
                facecolors=[color if passed else "white" for _, _, passed in group], edgecolors=color, linewidths=1.5,
            )  # fmt: skip
        steps = sorted(points[name][:2] for name in best)
        axes.step(*zip(*steps, strict=True), where="post", color=FRONT, linewidth=1, alpha=0.5)
        if chosen is not None and chosen.name in points:
            axes.scatter(*points[chosen.name][:2], s=180, facecolors="none", edgecolors=CHOSEN, linewidths=2, zorder=4)
        axes.xaxis.set_major_locator(MaxNLocator(5))
        axes.xaxis.set_minor_locator(NullLocator())
        axes.xaxis.set_major_formatter(FormatStrFormatter("%g"))
        axes.margins(0.12)
        axes.grid(alpha=0.25)
        axes.spines[["top", "right"]].set_visible(False)
    figure.axes[0].set_ylabel(MEASURES[error].axis)
    save_figure(figure, path)


def save_heatmaps(trials: Sequence[TrialResult], panels: tuple[str, ...], keys: tuple[str, str], path: Path) -> None:
    """Draw the mean of each measure over two parameters; a combination without a trial stays empty."""
    across, down = (sorted({trial.params[key] for trial in trials}, key=_order) for key in keys)
    figure = _figure(11.5, 1.5 + 0.55 * len(down))
    for axes, name in zip(figure.subplots(1, len(panels)), panels, strict=True):
        grid = np.full((len(down), len(across)), np.nan)
        for line, lower in enumerate(down):
            for column, upper in enumerate(across):
                values = [
                    value
                    for trial in trials
                    if (trial.params[keys[0]], trial.params[keys[1]]) == (upper, lower)
                    and (value := trial.value(name)) is not None
                ]
                grid[line, column] = np.mean(values) if values else np.nan
        _heatmap(axes, grid, MEASURES[name])
        axes.set_xticks(range(len(across)), [str(value) for value in across])
        axes.set_yticks(range(len(down)), [str(value) for value in down])
        axes.set_xlabel(keys[0])
        axes.set_title(MEASURES[name].short_heading, fontsize=10)
    figure.axes[0].set_ylabel(keys[1])
    save_figure(figure, path)


def _heatmap(axes: Axes, grid: Any, measure: Measure) -> None:
    higher = measure.better == "higher"
    if not np.isnan(grid).all():
        axes.imshow(grid, cmap="viridis" if higher else "viridis_r", aspect="auto")
    low, high = (np.nanmin(grid), np.nanmax(grid)) if not np.isnan(grid).all() else (0.0, 1.0)
    for (line, column), value in np.ndenumerate(grid):
        if not math.isnan(value):
            share = (value - low) / (high - low) if high > low else 0.5
            bright = share > 0.6 if higher else share < 0.4
            text = measure.text(float(value))
            axes.text(column, line, text, ha="center", va="center", fontsize=9, color="black" if bright else "white")


def _order(value: Any) -> tuple[bool, float, str]:
    numeric = isinstance(value, int | float)
    return (not numeric, float(value) if numeric else 0.0, str(value))


def _figure(width: float, height: float) -> Figure:
    figure = Figure(figsize=(width, height), dpi=120, layout="constrained", facecolor="white")
    FigureCanvasAgg(figure)
    return figure
