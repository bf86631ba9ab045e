"""Error over cost of networks of several sizes: what smaller ones give up, and what new ones of their size reach."""

from collections.abc import Mapping
from pathlib import Path

from matplotlib.axes import Axes
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure

from leanface.files import Json
from leanface.report.sheet import save_figure

LATENCY = "latency.json"

STARTS = {"pruned": ("#0969da", "o"), "uncompensated": ("#bf8700", "s"), "scratch": ("#cf222e", "D")}
"""Color and marker of what a network started from."""

ERRORS = {
    "truth_vertex_mm": ("truth_vertex_mm", "vertices to truth (mm)"),
    "teacher_vertex_mm": ("", "vertices to the original (mm)"),
}
"""A metric: the original's own, if it has one, and its title."""

Points = dict[str, tuple[float, float]]


def save_pareto(results: Mapping[str, Json], latency: Json | None, path: Path) -> None:
    """Errors over multiply-accumulates, parameters and, where they were measured, latencies.

    Args:
        results: by variant, see `tools.studies.table.RESULT`.
        latency: see `tools.studies.latency`.
    """
    costs = {
        "million multiply-accumulates": {name: result["metrics"]["macs"] / 1e6 for name, result in results.items()},
        "million parameters": {name: result["metrics"]["parameters"] / 1e6 for name, result in results.items()},
    }
    first = next(iter(results.values()))["original"]
    originals = {title: first[key] / 1e6 for title, key in zip(costs, ("macs", "parameters"), strict=True)}
    for title, times in latencies(latency).items():
        costs[title] = {name: times[name] for name in results if name in times}
        if "original" in times:
            originals[title] = times["original"]
    errors = {
        name: shown for name, shown in ERRORS.items() if all(name in result["metrics"] for result in results.values())
    }
    figure = Figure(figsize=(3.6 * len(costs) + 0.6, 3.5 * len(errors)), dpi=110, layout="constrained")
    FigureCanvasAgg(figure)
    panels = figure.subplots(len(errors), len(costs), sharey="row", squeeze=False)
    for line, (metric, (own, title)) in enumerate(errors.items()):
        for column, (cost, values) in enumerate(costs.items()):
            axes: Axes = panels[line, column]
            _panel(axes, results, metric, values)
            if cost in originals:
                error = first.get(own, 0.0)
                axes.plot(originals[cost], error, "*", color="#1f2328", markersize=11)
                axes.annotate("original", (originals[cost], error), (-4, 6), textcoords="offset points", fontsize=7,
                              ha="right")  # fmt: skip
            axes.set_xscale("log")
            axes.set_xlabel(cost)
            axes.grid(alpha=0.3, which="both")
        panels[line, 0].set_ylabel(title)
    save_figure(figure, path)


def latencies(measured: Json | None) -> dict[str, dict[str, float]]:
    """Medians (ms) by runtime and batch, then by variant; nothing of what was not measured."""
    found: dict[str, dict[str, float]] = {}
    rows: list[Json] = measured["rows"] if measured else []
    for row in rows:
        title = f"ms, batch {row['batch']} ({row['runtime']})"
        found.setdefault(title, {})[row["variant"]] = row["p50_ms"]
    return found


def _panel(axes: Axes, results: Mapping[str, Json], metric: str, costs: Mapping[str, float]) -> None:
    """A point per variant; those that were pruned by the same criterion are joined, from the smallest on."""
    for start, (color, marker) in STARTS.items():
        lines: dict[str, Points] = {}
        for name, result in results.items():
            if result["variant"]["start"] == start and name in costs:
                pruning: Json | None = result["variant"].get("prune")
                criterion: str = pruning["importance"]["name"] if pruning else ""
                lines.setdefault(criterion, {})[name] = (costs[name], result["metrics"][metric])
        for points in lines.values():
            ordered = sorted(points.values())
            axes.plot(*zip(*ordered, strict=True), marker, color=color, markersize=5)
            axes.plot(*zip(*ordered, strict=True), "-", color=color, alpha=0.35, linewidth=1)
            for name, point in points.items():
                axes.annotate(name, point, (4, 4), textcoords="offset points", fontsize=7, color=color)
