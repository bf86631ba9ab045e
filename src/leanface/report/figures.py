"""The report's own pictures."""

from pathlib import Path

from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure

from leanface.report.pictures import save_figure
from leanface.report.sources import Json
from leanface.report.tables import RUNTIME_NAMES, VARIANT_NAMES

COLOURS = {
    "original_fp32": "#57606a",
    "distilled_fp32": "#0969da",
    "distilled_fp16": "#8250df",
    "quantized_int8": "#1a7f37",
}


def save_pareto(variants: dict[str, Json], path: Path) -> None:
    """Error against ground truth over latency and over size: the lower left is best."""
    figure = Figure(figsize=(9, 3.6), dpi=140, layout="constrained", facecolor="white")
    FigureCanvasAgg(figure)
    panels = {"latency_ms_p50": "latency at batch 1, fastest runtime (ms)", "size_mb": "ONNX file (MB)"}
    for axes, (key, axis) in zip(figure.subplots(1, 2, sharey=True), panels.items(), strict=True):
        for name, variant in variants.items():
            if variant["vertex_error_mm"] is None:
                continue
            text = VARIANT_NAMES[name]
            if key == "latency_ms_p50":
                text += f"\n{RUNTIME_NAMES[variant['runtime']]}"
            at = (variant[key], variant["vertex_error_mm"])
            axes.scatter(*at, s=90, color=COLOURS[name], zorder=3, edgecolor="white")
            axes.annotate(text, at, xytext=(0, 9), textcoords="offset points", fontsize=8, ha="center")
        axes.set_xlabel(axis)
        axes.set_xlim(left=0)
        axes.set_ylim(bottom=0)
        axes.margins(x=0.18, y=0.35)
        axes.grid(alpha=0.25)
        axes.spines[["top", "right"]].set_visible(False)
    figure.axes[0].set_ylabel("vertex error against ground truth (mm)")
    save_figure(figure, path)
