"""The original network, layer by layer, as pictures: what each layer costs, and how much of the outputs it carries."""

from collections.abc import Mapping, Sequence
from itertools import groupby
from pathlib import Path
from typing import Any

from matplotlib.axes import Axes
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.colors import LinearSegmentedColormap
from matplotlib.figure import Figure
from matplotlib.patches import Patch
from matplotlib.ticker import FormatStrFormatter, LogLocator, NullLocator

from leanface.files import Json
from leanface.report.sheet import save_figure
from leanface.task import Naming

COSTS = {
    "parameters": ("parameters (million)", 1e6),
    "macs": ("MACs (million)", 1e6),
    "activation_bytes": ("activation (MiB, FP32)", 2**20),
    "latency_ms": ("latency (ms)", 1),
}
"""Title and divisor of each cost in the picture."""

Damages = Mapping[str, tuple[str, float]]
"""As `leanface.catalog.Subject.damages`."""

SIMILARITIES = ("ssim",)
"""Measures of which what counts is the distance to 1."""

RATIO_COLORS = LinearSegmentedColormap.from_list("ratios", ["#d5e8f8", "#2f7fd0", "#08204d"])
CHAIN_COLOR, STREAM_COLOR, INT8_COLOR = "#afb8c1", "#cf222e", "#8250df"
NAMED = 6
"""So many of the largest damages of a panel have their values written above them."""


MARGINS = {"left": 0.075, "right": 0.99, "top": 0.93, "bottom": 0.2, "hspace": 0.12}
"""Given, since having them found costs as long as drawing."""


def save_layers(layers: Mapping[str, Mapping[str, float]], naming: Naming, path: Path) -> None:
    """Write a PNG of `COSTS`, by layer in order of execution, and of each part's share of them."""
    names = list(layers)
    figure = Figure(figsize=(13, 9.5), dpi=110, facecolor="white")
    FigureCanvasAgg(figure)
    panels = figure.subplots(
        len(COSTS), sharex=True, gridspec_kw=MARGINS | {"top": 0.94, "bottom": 0.14, "hspace": 0.15}
    )
    for axes, (cost, (title, unit)) in zip(panels, COSTS.items(), strict=True):
        values = [layers[name][cost] / unit for name in names]
        axes.bar(range(len(names)), values, color=[naming.kinds[naming.kind(name)][1] for name in names], width=0.8)
        axes.set_ylabel(title)
        axes.set_ylim(0, 1.2 * max(values))
        axes.set_title(f"total {sum(values):,.4g}", loc="right", fontsize=9)
        shares = [sum(values[start:stop]) / sum(values) for _, start, stop in _parts(names, naming)]
        _shade_parts(axes, names, naming, [f" {share:.0%}" for share in shares])
    _name_ticks(panels[-1], [naming.label(name) for name in names])
    legend = [Patch(color=color, label=label) for label, color in naming.kinds.values()]
    figure.legend(handles=legend, loc="upper left", ncols=len(legend), frameon=False, fontsize=9)
    save_figure(figure, path)


def save_sensitivity(sensitivity: Json, naming: Naming, damages: Damages, path: Path) -> None:
    """Write a PNG of sensitivity.json, in order of depth: above each group pruned, below each layer in INT8."""
    figure = Figure(figsize=(13, 13), dpi=110, facecolor="white")
    FigureCanvasAgg(figure)
    halves: Any = figure.subfigures(2)
    upper, lower = halves
    panels = upper.subplots(len(damages), sharex=True, gridspec_kw=MARGINS)
    for axes, damage in zip(panels, damages, strict=True):
        _plot_groups(axes, sensitivity["groups"], naming, damage, damages[damage])
    groups = sensitivity["groups"].items()
    _name_ticks(
        panels[-1],
        [f"{naming.part(name)} stream" if _is_stream(group) else naming.label(name) for name, group in groups],
    )
    panels[0].legend(loc="lower right", bbox_to_anchor=(1, 1), ncols=9, frameon=False, fontsize=9)
    panels[0].set_title("One group of coupled channels pruned, without recovery", loc="left", fontweight="bold")
    panels = lower.subplots(len(damages), sharex=True, gridspec_kw=MARGINS)
    for axes, damage in zip(panels, damages, strict=True):
        _plot_layers(axes, sensitivity["quantize"], naming, damage, damages[damage])
    _name_ticks(panels[-1], [naming.label(name) for name in sensitivity["quantize"]])
    panels[0].set_title("One layer's weights and inputs in INT8, without training", loc="left", fontweight="bold")
    save_figure(figure, path)


def headline(sensitivity: Json, damages: Damages) -> dict[str, float]:
    """Return the worst that pruning any one group, and INT8 in any one layer, does to the outputs."""
    pruned = [errors for group in sensitivity["groups"].values() for errors in group["errors"].values()]
    quantized = list(sensitivity["quantize"].values())
    return {
        f"{name}_{key.rpartition('_')[2]}": (min if key in SIMILARITIES else max)(errors[key] for errors in found)
        for name, found in (("pruned_worst", pruned), ("int8_worst", quantized))
        for key in damages
    }


def _plot_groups(axes: Axes, groups: Mapping[str, Json], naming: Naming, damage: str, shown: tuple[str, float]) -> None:
    """Draw a line for each group, from the damage of its smallest ratio to its largest's; red for residual streams."""
    damages = [[_damage(errors, damage) for errors in group["errors"].values()] for group in groups.values()]
    lowest, highest = [min(each) for each in damages], [max(each) for each in damages]
    colors = [STREAM_COLOR if _is_stream(group) else CHAIN_COLOR for group in groups.values()]
    axes.vlines(range(len(damages)), lowest, highest, colors=colors, linewidth=2.5)
    for ratio, values in zip(next(iter(groups.values()))["errors"], zip(*damages, strict=True), strict=True):
        color = RATIO_COLORS(float(ratio))
        axes.scatter(range(len(values)), values, s=32, color=color, zorder=3, label=f"{float(ratio):.0%} gone")
    _scale(axes, shown, min(lowest), max(highest))
    _write_largest(axes, highest)
    _shade_parts(axes, list(groups), naming)


def _plot_layers(
    axes: Axes, layers: Mapping[str, Mapping[str, float]], naming: Naming, damage: str, shown: tuple[str, float]
) -> None:
    values = [_damage(errors, damage) for errors in layers.values()]
    axes.bar(range(len(values)), values, color=INT8_COLOR, width=0.8)
    _scale(axes, shown, min(values), max(values))
    _write_largest(axes, values, rotation=90)
    _shade_parts(axes, list(layers), naming)


def _damage(errors: Mapping[str, float], damage: str) -> float:
    return 1 - errors[damage] if damage in SIMILARITIES else errors[damage]


def _is_stream(group: Json) -> bool:
    return len(group["convolutions"]) > 1


def _scale(axes: Axes, shown: tuple[str, float], lowest: float, highest: float) -> None:
    """Set a logarithmic axis with room at the top."""
    title, least = shown
    bottom = max(lowest / 1.5, least)
    top = max(highest, 10 * bottom)
    axes.set_ylim(bottom, top * (top / bottom) ** 0.5)
    axes.set_yscale("log")
    axes.yaxis.set_major_locator(LogLocator(subs=(1, 3) if top < 1e3 * bottom else (1,)))
    axes.yaxis.set_major_formatter(FormatStrFormatter("%g"))
    axes.yaxis.set_minor_locator(NullLocator())
    axes.set_ylabel(title)


def _write_largest(axes: Axes, values: Sequence[float], rotation: int = 0) -> None:
    for place in sorted(range(len(values)), key=values.__getitem__)[-NAMED:]:
        if values[place] > axes.get_ylim()[0]:
            point, offset = (place, values[place]), (0, 5)
            text = f"{values[place]:.2g}"
            axes.annotate(text, point, offset, textcoords="offset points", rotation=rotation, ha="center", fontsize=8)


def _shade_parts(axes: Axes, names: Sequence[str], naming: Naming, notes: Sequence[str] | None = None) -> None:
    """Draw a band for every part of the network, with its name and a note at the top."""
    parts = _parts(names, naming)
    for index, ((part, start, stop), note) in enumerate(zip(parts, notes or [""] * len(parts), strict=True)):
        if index % 2:
            axes.axvspan(start - 0.5, stop - 0.5, color="#f0f3f6", zorder=-2)
        middle = (start + stop - 1) / 2
        axes.text(middle, 0.95, part + note, transform=axes.get_xaxis_transform(), ha="center", va="top", fontsize=8.5)
    axes.grid(axis="y", alpha=0.3)
    axes.set_axisbelow(True)
    axes.spines[["top", "right"]].set_visible(False)


def _parts(names: Sequence[str], naming: Naming) -> list[tuple[str, int, int]]:
    """List each part of the network with its first place among the names and the place after its last."""
    found: list[tuple[str, int, int]] = []
    for part, members in groupby(names, naming.part):
        start = found[-1][2] if found else 0
        found.append((part, start, start + len(list(members))))
    return found


def _name_ticks(axes: Axes, labels: Sequence[str]) -> None:
    axes.set_xticks(range(len(labels)), labels, rotation=90, fontsize=7.5)
    axes.set_xlim(-1.7, len(labels))
    for tick in axes.get_xticklabels():
        if tick.get_text().endswith("stream"):
            tick.set(color=STREAM_COLOR, fontweight="bold")
