"""The report's own pictures."""

from pathlib import Path

from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure
from matplotlib.ticker import FormatStrFormatter, LogLocator, NullLocator

from leanface.files import Json
from leanface.report.sheet import save_figure
from leanface.report.tables import RUNTIME_NAMES, VARIANT_NAMES

COLOURS = {
    "original_fp32": "#57606a",
    "distilled_fp32": "#0969da",
    "distilled_fp16": "#8250df",
    "quantized_int8": "#1a7f37",
}


def save_pareto(variants: dict[str, Json], path: Path, *, narrow: bool = False) -> None:
    """Error over latency and over size, against ground truth, or of photos against the original: lower left is best.

    Args:
        narrow: one panel below the other, for a phone.
    """
    figure = Figure(figsize=(4.2, 6.4) if narrow else (9, 3.2), dpi=140, layout="constrained", facecolor="white")
    FigureCanvasAgg(figure)
    labelled = any(variant["vertex_error_mm"] is not None for variant in variants.values())
    error = "vertex_error_mm" if labelled else "vertex_to_original_mm"
    known = {name: variant for name, variant in variants.items() if variant[error] is not None}
    panels = {"latency_ms_p50": "latency at batch 1, fastest runtime (ms)", "size_mb": "ONNX file (MB)"}
    for axes, (key, axis) in zip(
        figure.subplots(*((2, 1) if narrow else (1, 2)), sharey=True), panels.items(), strict=True
    ):
        for name, variant in known.items():
            label = f"{VARIANT_NAMES[name]}, {RUNTIME_NAMES[variant['runtime']]}"
            axes.scatter(variant[key], variant[error], s=90, color=COLOURS[name], zorder=3, label=label)
        axes.set_xscale("log")
        axes.xaxis.set_major_locator(LogLocator(subs=(1, 2, 5)))
        axes.xaxis.set_major_formatter(FormatStrFormatter("%g"))
        axes.xaxis.set_minor_locator(NullLocator())
        axes.set_xlabel(axis)
        axes.margins(x=0.12)
        axes.grid(alpha=0.25)
        axes.spines[["top", "right"]].set_visible(False)
    first = figure.axes[0]
    for axes in figure.axes if narrow else [first]:
        axes.set_ylabel("vertex error (mm)" if labelled else "to the original (mm)")
    first.set_ylim(0, 1.25 * max((variant[error] for variant in known.values()), default=1.0))
    place = "outside upper center" if narrow else "outside right center"
    figure.legend(*first.get_legend_handles_labels(), loc=place, frameon=False, fontsize=9)
    save_figure(figure, path)
