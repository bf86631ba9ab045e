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


def error_measure(variants: Mapping[str, VariantSummary]) -> str:
    """Choose the error that all have: against ground truth, or of photos without labels against the original."""
    labeled = any(variant.measures["truth_vertex_mm"] is not None for variant in variants.values())
    return "truth_vertex_mm" if labeled else "teacher_vertex_mm"


def save_pareto(variants: Mapping[str, VariantSummary], path: Path, *, narrow: bool = False) -> None:
    """Draw the error over latency and over size, a point per network: the lower left is best.

    Args:
        narrow: one panel below the other, for a phone.
    """
    figure = Figure(figsize=(4.2, 6.4) if narrow else (9, 3.2), dpi=140, layout="constrained", facecolor="white")
    FigureCanvasAgg(figure)
    error = error_measure(variants)
    known = {name: variant for name, variant in variants.items() if variant.measures[error] is not None}
    for axes, cost in zip(figure.subplots(*((2, 1) if narrow else (1, 2)), sharey=True), PANELS, strict=True):
        for name, variant in known.items():
            label = f"{VARIANTS[name].title}, {runtime_title(variant.runtime)}"
            point = variant.measures[cost], variant.measures[error]
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
        axes.set_ylabel(MEASURES[error].short_heading)
    first.set_ylim(0, 1.25 * max((variant.measures[error] or 0.0 for variant in known.values()), default=1.0))
    place = "outside upper center" if narrow else "outside right center"
    figure.legend(*first.get_legend_handles_labels(), loc=place, frameon=False, fontsize=9)
    save_figure(figure, path)
