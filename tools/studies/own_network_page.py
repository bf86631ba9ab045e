"""The tables and the picture of what `tools.studies.own_network` measured."""

from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure

from leanface.catalog import DASH, MEASURES, PERCENT, number
from leanface.device import describe_device
from leanface.files import Json, atomic_write
from leanface.metrics.estimate import CONFIDENCE, RESAMPLES, estimate
from leanface.report.sheet import save_figure

STATES = {"pruned": "torch-pruning alone", "remeasured": "batch norms re-estimated", "compensated": "re-fitted"}
"""What is compared, by the name of its bundle."""

GOAL = 0.5
"""Of the error that re-estimated batch norms leave, at most so much is to be left by the re-fit."""


REFERENCE = "LeanFace PTQ"
"""What the distances of other tools' INT8 are compared with."""


class Ratio(NamedTuple):
    """A ratio of means over the same samples, and its 95 % interval; NaN where it says nothing."""

    value: float
    low: float
    high: float


def ratio_of_means(above: Sequence[float], below: Sequence[float]) -> Ratio:
    """Estimate by percentile bootstrap over the samples; NaN where the mean below is not surely positive."""
    pairs = np.array([above, below])
    picks = np.random.default_rng(0).integers(pairs.shape[1], size=(RESAMPLES, pairs.shape[1]))
    tops, bottoms = pairs[:, picks].mean(axis=2)
    tail = (1 - CONFIDENCE) / 2
    if np.quantile(bottoms, tail) <= 0:
        return Ratio(np.nan, np.nan, np.nan)
    low, high = np.quantile(tops / bottoms, (tail, 1 - tail))
    return Ratio(float(pairs[0].mean() / pairs[1].mean()), float(low), float(high))


def lost(errors: Mapping[str, Sequence[float]], original: Sequence[float]) -> list[float]:
    """Return how much more wrong each sample is than the original's."""
    return [ours - theirs for ours, theirs in zip(errors["truth"], original, strict=True)]


def write_page(results: dict[str, Json], folder: Path) -> None:
    """Write tables.md and own_network.png."""
    folder.mkdir(parents=True, exist_ok=True)
    lines = [
        f"`python -m tools.studies own_network`, on {describe_device()['cpu']}. Means over the test split; intervals "
        "of 95 %, by bootstrap over its samples, are in brackets.",
        "", "## The networks", "", *_table(_networks(results)),
        "", "## Before any training", "", *_table(_states(results, trained=False)),
        "", "## After the same training", "", *_table(_states(results, trained=True)),
        "", "## INT8", "", *_table(_int8(results)), "",
    ]  # fmt: skip
    lines += [f"- {network}, {layer}: {why}" for network, layer, why in _left(results)]
    atomic_write(folder / "tables.md", "\n".join(lines).rstrip() + "\n")
    _draw(results, folder / "own_network.png")


def _table(rows: Iterator[list[str]]) -> list[str]:
    head, *body = rows
    lines = [head, ["---", "---", *["---:"] * (len(head) - 2)], *body]
    return [f"| {' | '.join(line)} |" for line in lines]


def _networks(results: dict[str, Json]) -> Iterator[list[str]]:
    yield ["network", "error of the original", "test samples", "million MACs", "MACs left", "parameters left", "ridge"]
    for name, found in results.items():
        pruned: Json = found["pruned"]
        truth: list[float] = found["original"]["errors"]["truth"]
        cells = [f"{_cell(found['error'], truth)}{_unit(found['error'])}", str(len(truth))]
        cells += [number(pruned["original_macs"] / 1e6)]
        cells += [f"{pruned[share]:.1%}" for share in ("macs", "parameters")]
        yield [name, *cells, f"{pruned['ridge']:g}"]


def _states(results: dict[str, Json], *, trained: bool) -> Iterator[list[str]]:
    yield ["network", "error", *STATES.values(), "re-fitted over re-estimated", "halved"]
    for name, found in results.items():
        errors = {state: _errors(found, state, trained=trained) for state in STATES}
        original = found["original"]["errors"]["truth"]
        rows = {
            (found["teacher_error"], _to_original(found)): {state: each["teacher"] for state, each in errors.items()},
            (found["error"], "lost to the truth"): {state: lost(each, original) for state, each in errors.items()},
        }
        for (measure, what), values in rows.items():
            ratio = ratio_of_means(values["compensated"], values["remeasured"])
            halved = DASH if np.isnan(ratio.value) else "yes" if ratio.value <= GOAL else "no"
            cells = [_cell(measure, values[state]) for state in STATES]
            yield [name, f"{what},{unit}" if (unit := _unit(measure)) else what, *cells, _ratio(ratio), halved]


def _to_original(found: Json) -> str:
    return f"{MEASURES[found['teacher_error']].title} to the original"


def _errors(found: Json, state: str, *, trained: bool) -> Any:
    return found["trained"][state]["errors"] if trained else found["pruned"]["errors"][state]


def _cell(measure: str, values: Sequence[float]) -> str:
    return MEASURES[measure].text(float(np.mean(values)))


def _ratio(ratio: Ratio) -> str:
    return DASH if np.isnan(ratio.value) else f"{ratio.value:.2g} ({ratio.low:.2g} to {ratio.high:.2g})"


def _unit(measure: str) -> str:
    unit = MEASURES[measure].unit
    return "" if unit == PERCENT else f" {unit}"


def _int8(results: dict[str, Json]) -> Iterator[list[str]]:
    yield ["network", "made by", "to the network before INT8", f"{REFERENCE}'s over it", "to the original",
           "lost to the truth", "MB"]  # fmt: skip
    for name, found in results.items():
        original, float32 = found["original"]["errors"]["truth"], found["trained"]["compensated"]["errors"]
        measure, error = found["teacher_error"], found["error"]
        yield [
            name,
            "none: float32",
            DASH,
            DASH,
            _cell(measure, float32["teacher"]),
            _cell(error, lost(float32, original)),
            "",
        ]
        for tool, made in found["int8"].items():
            if "not_run" in made:
                yield [name, tool, f"`not_run`: {made['not_run']}", DASH, DASH, DASH, DASH]
                continue
            errors = made["errors"]
            distance, to_original = (_cell(measure, errors[reference]) for reference in ("float", "teacher"))
            closer = ratio_of_means(found["int8"][REFERENCE]["errors"]["float"], errors["float"])
            cells = [distance, DASH if tool == REFERENCE else _ratio(closer), to_original]
            yield [name, tool, *cells, _cell(error, lost(errors, original)), f"{made['size_bytes'] / 1e6:.2f}"]


def _left(results: dict[str, Json]) -> Iterator[tuple[str, str, str]]:
    for name, found in results.items():
        for layer, why in found["pruned"]["left"].items():
            yield name, layer, why


def _draw(results: dict[str, Json], path: Path) -> None:
    """Draw the error to the original of each state, before and after training."""
    figure = Figure(figsize=(3.2 * len(results), 3.6), dpi=110, layout="constrained", facecolor="white")
    FigureCanvasAgg(figure)
    panels = figure.subplots(1, len(results), squeeze=False)[0]
    for axes, (name, found) in zip(panels, results.items(), strict=True):
        measure = MEASURES[found["teacher_error"]]
        for offset, trained, label in ((-0.1, False, "before training"), (0.1, True, "after the same training")):
            means = [estimate(np.array(_errors(found, state, trained=trained)["teacher"])) for state in STATES]
            points = [(mean.mean, mean.mean - mean.low, mean.high - mean.mean) for mean in means if mean is not None]
            middle, below, above = np.array(points).T
            places = np.arange(len(STATES)) + offset
            axes.errorbar(places, middle, [below, above], fmt="o", capsize=3, label=label)
        axes.set_yscale("log")
        axes.set_xticks(range(len(STATES)), ["\n".join(title.rsplit(" ", 1)) for title in STATES.values()], fontsize=8)
        axes.set_title(name)
        axes.set_ylabel(f"{measure.title} to the original ({measure.unit})", fontsize=8)
        axes.grid(alpha=0.3, which="both")
    figure.legend(*panels[0].get_legend_handles_labels(), loc="outside lower center", ncols=2)
    save_figure(figure, path)
