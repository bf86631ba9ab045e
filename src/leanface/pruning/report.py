"""A network's layers, before and after pruning: pictures and a table."""

import csv
from collections.abc import Mapping, Sequence
from pathlib import Path

from matplotlib.axes import Axes
from matplotlib.figure import Figure
from torch import nn

from leanface.files import staged_file
from leanface.networks.widths import Widths
from leanface.pruning.compensate import LayerFit
from leanface.pruning.cost import LayerCost, macs_and_parameters

ORIGINAL, PRUNED = "#9aa4b0", "#0969da"


def plot_widths(original: Widths, pruned: Widths, path: Path) -> None:
    """Plot the output channels of every layer that lost some, before and after."""
    left = {name: pruned.get(name, (0, 0)) for name in original}  # a dropped layer has none
    names = [name for name in original if original[name][1] != left[name][1]] or list(original)
    figure = Figure(figsize=(12, 4.2), layout="constrained")
    axes = figure.subplots()
    for widths, color, label in ((original, ORIGINAL, "original"), (left, PRUNED, "pruned")):
        axes.bar(range(len(names)), [widths[name][1] for name in names], color=color, label=label, width=0.8)
    axes.set_yscale("log", base=2)
    axes.set_ylim(bottom=4)  # otherwise the narrowest bars would have no height
    axes.set_ylabel("output channels")
    _name_layers(axes, names)
    axes.legend()
    _save(figure, path)


def size_metrics(original: nn.Module, pruned: nn.Module, size: int) -> dict[str, float]:
    """Return multiply-accumulates, for an image of `size` pixels, and parameters of both, and what is left of them."""
    macs, parameters = macs_and_parameters(original, size)
    macs_left, parameters_left = macs_and_parameters(pruned, size)
    return {
        "teacher/macs": macs,
        "teacher/parameters": parameters,
        "pruned/macs": macs_left,
        "pruned/parameters": parameters_left,
        "macs_share": macs_left / macs,
        "parameters_share": parameters_left / parameters,
    }


def recovered(metrics: Mapping[str, float], error: str) -> dict[str, float]:
    """Share of an error against the original that compensation took back; {} if there was none to take."""
    before, after = (metrics.get(f"{state}/{error}") for state in ("pruned", "compensated"))
    return {} if not before or after is None else {f"recovered/{error}": 1 - after / before}


def write_layers(
    original: Mapping[str, LayerCost], pruned: Mapping[str, LayerCost], fits: Sequence[LayerFit], path: Path
) -> None:
    """Write one row per convolution: its costs before and after pruning, and what the re-fit did, if any."""
    errors = {fit.name: fit for fit in fits}
    with staged_file(path) as staging, staging.open("w", newline="") as file:
        writer = csv.writer(file)
        costs = [f"{cost}_{when}" for when in ("original", "pruned") for cost in LayerCost._fields]
        writer.writerow(["name", *costs, "response_error_before", "response_error_after"])
        for name in original:
            fit = errors.get(name)
            response = ("", "") if fit is None else (fit.error_before, fit.error_after)
            left = pruned.get(name, LayerCost(0, 0, 0))
            writer.writerow([name, *original[name], *left, *response])


def _name_layers(axes: Axes, names: list[str]) -> None:
    tops = {name.partition(".")[0] for name in names}
    shared = f"{tops.pop()}." if len(tops) == 1 else ""
    labels = [name.removeprefix(shared) for name in names]
    axes.set_xticks(range(len(names)), labels, rotation=90, fontsize=6)
    axes.margins(x=0.005)


def _save(figure: Figure, path: Path) -> None:
    with staged_file(path) as staging:
        figure.savefig(staging, dpi=110)
