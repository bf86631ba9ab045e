"""Draw the report's own pictures."""

from collections.abc import Mapping
from pathlib import Path

from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure
from matplotlib.ticker import FormatStrFormatter, LogLocator, NullLocator

from leanface.catalog import MEASURES, VARIANTS, runtime_title
from leanface.report.sheet import save_figure
from leanface.report.summary import VariantSummary

PANELS = ("latency_ms", "size_mb")


def save_pareto(variants: Mapping[str, VariantSummary], error: str, path: Path, *, narrow: bool = False) -> None:
    """Draw an error over latency and over size, a point per network: the lower left is best.

    Args:
        narrow: one panel below the other, for a phone.
    """
    figure = Figure(figsize=(4.2, 6.4) if narrow else (9, 3.2), dpi=140, layout="constrained", facecolor="white")
    FigureCanvasAgg(figure)
    scale = MEASURES[error].scale
    known = {name: value / scale for name, each in variants.items() if (value := each.measures[error]) is not None}
    for axes, cost in zip(figure.subplots(*((2, 1) if narrow else (1, 2)), sharey=True), PANELS, strict=True):
        for name, value in known.items():
            variant = variants[name]
            label = f"{VARIANTS[name].title}, {runtime_title(variant.runtime)}"
            point = variant.measures[cost], value
            axes.scatter(*point, s=90, color=VARIANTS[name].color, zorder=3, label=label)
        axes.set_xscale("log")
        axes.xaxis.set_major_locator(LogLocator(subs=(1, 2, 5)))
        axes.xaxis.set_major_formatter(FormatStrFormatter("%g"))
        axes.xaxis.set_minor_locator(NullLocator())
        axes.set_xlabel(MEASURES[cost].heading)
        axes.margins(x=0.12)
        axes.grid(alpha=0.25)
        axes.spines[["top", "right"]].set_visible(False)
    first = figure.axes[0]
    for axes in figure.axes if narrow else [first]:
        axes.set_ylabel(MEASURES[error].axis)
    first.set_ylim(0, 1.25 * (max(known.values(), default=1.0) or 1.0))  # all may be right
    place = "outside upper center" if narrow else "outside right center"
    figure.legend(*first.get_legend_handles_labels(), loc=place, frameon=False, fontsize=9)
    save_figure(figure, path)
