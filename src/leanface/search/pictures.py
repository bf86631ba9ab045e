"""Draw what a search found: the front, predicted and measured times, the chosen widths, and where its time went."""

from pathlib import Path

from matplotlib.axes import Axes
from matplotlib.figure import Figure

from leanface.files import staged_file
from leanface.networks.widths import Widths
from leanface.search.record import SearchRecord

SEARCHED, UNIFORM, ORIGINAL = "#0969da", "#9a6700", "#9aa4b0"


def plot_search(record: SearchRecord, original: Widths, chosen: Widths, uniform: Widths, path: Path) -> None:
    """Draw four panels.

    Args:
        original: widths of the original's layers; `chosen` and `uniform` likewise, of those that are left.
    """
    figure = Figure(figsize=(12, 8), layout="constrained")
    grid = figure.add_gridspec(2, 3, height_ratios=(1.2, 1))
    _front(record, figure.add_subplot(grid[0, 0]))
    _timed(record, figure.add_subplot(grid[0, 1]))
    _seconds(record, figure.add_subplot(grid[0, 2]))
    _widths(original, chosen, uniform, figure.add_subplot(grid[1, :]))
    with staged_file(path) as staging:
        figure.savefig(staging, dpi=110)


def _front(record: SearchRecord, axes: Axes) -> None:
    points = record.front
    axes.plot([p.latency_ms for p in points], [p.error for p in points], "o-", color=SEARCHED, label="searched")
    alike = [(p.latency_ms, p.uniform_error) for p in points if p.uniform_error is not None]
    axes.plot(*zip(*alike, strict=True), "s--", color=UNIFORM, label="uniform, as fast")
    axes.set(
        xlabel=f"latency (ms, {record.runtime} {record.precision}, predicted)", title="Front, after a short re-fit"
    )
    axes.set_ylabel(f"{record.error} to the original")
    axes.set_xscale("log")
    ticks = [p.latency_ms for p in points]
    axes.set_xticks(ticks, [f"{tick:.2g}" for tick in ticks])
    axes.minorticks_off()
    axes.grid(alpha=0.3)
    axes.legend()


def _timed(record: SearchRecord, axes: Axes) -> None:
    predicted, measured = zip(*record.timed, strict=True)
    axes.scatter(measured, predicted, s=14, color=ORIGINAL, label="random networks, held out")
    tried = record.candidates
    axes.scatter(
        [one.latency_ms for one in tried], [one.predicted_ms for one in tried], s=30, color=SEARCHED, label="candidates"
    )
    ends = [0, max(*measured, *predicted)]
    axes.plot(ends, ends, color="black", linewidth=0.8)
    axes.set(xlabel="measured (ms)", ylabel="predicted (ms)")
    axes.set_title(f"Latency model: {100 * record.model_error:.1f} % off on average")
    axes.grid(alpha=0.3)
    axes.legend(loc="lower right", fontsize=8)


def _seconds(record: SearchRecord, axes: Axes) -> None:
    names = list(record.seconds)
    bars = axes.barh(range(len(names)), list(record.seconds.values()), color=SEARCHED)
    axes.bar_label(bars, fmt=" %.0f s")
    axes.set_yticks(range(len(names)), names)
    axes.invert_yaxis()
    axes.margins(x=0.25)
    axes.set(xlabel="seconds", title=f"Time per step ({record.cases} cases)")


def _widths(original: Widths, chosen: Widths, uniform: Widths, axes: Axes) -> None:
    names = [name for name in original if any(w.get(name, (0, 0))[1] != original[name][1] for w in (chosen, uniform))]
    shares = ((chosen, SEARCHED, "searched", -0.2), (uniform, UNIFORM, "uniform, as fast", 0.2))
    for widths, color, label, offset in shares:
        heights = [widths.get(name, (0, 0))[1] / original[name][1] for name in names]
        axes.bar([place + offset for place in range(len(names))], heights, width=0.4, color=color, label=label)
    axes.set_xticks(range(len(names)), names, rotation=90, fontsize=6)
    axes.set(ylabel="share of the channels left", title="Widths; a layer without a bar is dropped", ylim=(0, 1.02))
    axes.margins(x=0.005)
    axes.legend()
