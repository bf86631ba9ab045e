"""The table of an ablation as CSV, Markdown and pictures.

    python -m tools.studies table reports/ablations/distill docs/results/distillation

makes them again of the results that lie in a folder, say of those that came home from another machine.
"""

import csv
import io
from collections.abc import Mapping
from pathlib import Path

from matplotlib.axes import Axes
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator

from leanface.errors import ArtifactError
from leanface.files import Json, atomic_write, read_json
from leanface.report.sheet import save_figure

RESULT = "result.json"
"""Of one variant: "name", "place" in the table, "variant", "steps", "metrics" and "history"."""

COLUMNS = {
    "truth_vertex_mm": ("vertices to truth (mm)", "{:.3f}"),
    "teacher_vertex_mm": ("vertices to original (mm)", "{:.3f}"),
    "over_float": ("over the distilled's", "{:.3f}"),
    "float_vertex_mm": ("moved (mm)", "{:.3f}"),
    "file/teacher_vertex_mm": ("file on a CPU to original (mm)", "{:.3f}"),
    "size_mb": ("ONNX (MB)", "{:.2f}"),
    "truth_posed_mm": ("posed to truth (mm)", "{:.3f}"),
    "teacher_posed_mm": ("posed to original (mm)", "{:.3f}"),
    "teacher_rotation_deg": ("rotation to original (deg)", "{:.2f}"),
    "teacher_albedo_levels": ("albedo to original (levels)", "{:.2f}"),
    "ssim": ("UV SSIM", "{:.4f}"),
    "ssim_face": ("rendered SSIM, face", "{:.4f}"),
    "mse": ("rendered MSE", "{:.5f}"),
    "best_step": ("best step", "{:.0f}"),
    "seconds": ("seconds", "{:.0f}"),
}
"""Of the Markdown: a metric, its title and its format; the CSV has every metric. Without labels, none is to truth."""

DOTS = ("teacher_vertex_mm", "truth_vertex_mm", "float_vertex_mm", "mse")
CURVE = "val/posed_mm"


def save_table(results: Mapping[str, Json], folder: Path) -> None:
    """Write table.csv, table.md and curves.png of the finished variants, each whole or not at all.

    Args:
        results: by variant, see `RESULT`.
        folder: where they go.
    """
    rows = {name: result["metrics"] for name, result in results.items()}
    names = list(dict.fromkeys(name for row in rows.values() for name in row))
    text = io.StringIO()
    writer = csv.writer(text, lineterminator="\n")
    writer.writerow(["variant", "seed", "steps", *names])
    for name, result in results.items():
        writer.writerow(
            [name, result["variant"]["seed"], result["steps"], *(rows[name].get(metric) for metric in names)]
        )
    atomic_write(folder / "table.csv", text.getvalue())
    atomic_write(folder / "table.md", _markdown(results))
    _plot(results, folder / "curves.png")


def read_results(folder: Path) -> dict[str, Json]:
    """The finished variants in `folder`, in their table's order.

    Raises:
        ArtifactError: there are none.
    """
    results = [read_json(file) for file in folder.glob(f"*/{RESULT}")]
    if not results:
        raise ArtifactError(f"{folder} holds no results (*/{RESULT}) of `python -m tools.studies ablate`.")
    return {result["name"]: result for result in sorted(results, key=lambda result: result["place"])}


def _measured(results: Mapping[str, Json], metric: str) -> bool:
    return any(metric in result["metrics"] for result in results.values())


def _markdown(results: Mapping[str, Json]) -> str:
    shown = [name for name in COLUMNS if _measured(results, name)]
    lines = [["variant", *(COLUMNS[name][0] for name in shown)], ["---", *["---:"] * len(shown)]]
    for name, result in results.items():
        metrics = result["metrics"]
        cells = (COLUMNS[column][1].format(metrics[column]) if column in metrics else "" for column in shown)
        lines.append([name, *cells])
    return "".join(f"| {' | '.join(line)} |\n" for line in lines)


def _plot(results: Mapping[str, Json], path: Path) -> None:
    """Left, the validation error as training went, where it did; right, where each variant ended."""
    metrics = [metric for metric in DOTS if _measured(results, metric)]
    figure = Figure(figsize=(15, 1.8 + 0.3 * len(results)), dpi=110, layout="constrained", facecolor="white")
    FigureCanvasAgg(figure)
    curves, *dots = figure.subplots(1, 1 + len(metrics), width_ratios=[1.6, *[1] * len(metrics)])
    colors = {name: f"C{index % 10}" for index, name in enumerate(results)}
    for index, (name, result) in enumerate(results.items()):
        if points := [(row["step"], row[CURVE]) for row in result["history"]]:
            style = ("-", "--", ":")[index // 10 % 3]  # there are ten colors
            curves.plot(*zip(*points, strict=True), style, color=colors[name], label=name, linewidth=1.3)
    curves.set_xlabel("step")
    curves.set_ylabel("validation error, posed vertices (mm)")
    curves.grid(alpha=0.3)
    if curves.lines:
        curves.legend(fontsize=7, ncols=2)
    for place, (axes, metric) in enumerate(zip(dots, metrics, strict=True)):
        _dots(axes, metric, results, colors, named=place == 0)
    save_figure(figure, path)


def _dots(axes: Axes, metric: str, results: Mapping[str, Json], colors: Mapping[str, str], named: bool) -> None:
    """A dot per variant, the first one on top."""
    for place, (name, result) in enumerate(results.items()):
        if metric in result["metrics"]:
            axes.plot(result["metrics"][metric], place, "o", color=colors[name])
    axes.set_yticks(range(len(results)), list(results) if named else [""] * len(results), fontsize=8)
    axes.set_ylim(len(results) - 0.5, -0.5)
    axes.xaxis.set_major_locator(MaxNLocator(4))
    axes.set_title(COLUMNS[metric][0], fontsize=10)
    axes.grid(alpha=0.3)


def main(source: Path, target: Path) -> None:
    """Write the tables and pictures of the results in `source` to `target`."""
    target.mkdir(parents=True, exist_ok=True)
    save_table(read_results(source), target)
