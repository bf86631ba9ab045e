"""Training curves as a picture."""

from collections.abc import Mapping, Sequence
from pathlib import Path

from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator

from leanface.files import staged_file


def plot_curves(rows: Sequence[dict[str, float]], panels: Mapping[str, Sequence[tuple[str, str]]], path: Path) -> None:
    """Draw the history of a training (see `leanface.training.fit.FitResult`) to a PNG.

    Args:
        panels: as `leanface.catalog.Subject.curves`.
    """
    figure = Figure(figsize=(12, 2.8), layout="constrained")
    for axes, (unit, curves) in zip(figure.subplots(1, len(panels)), panels.items(), strict=True):
        for name, label in curves:
            points = [(row["step"], row[name]) for row in rows if name in row]
            if points:
                axes.plot(*zip(*points, strict=True), marker="o", markersize=3, label=label)
        axes.axhline(0, linewidth=0)  # the room above is a share of what is shown: else the frame hides a flat curve
        axes.set_ylim(bottom=0)
        axes.xaxis.set_major_locator(MaxNLocator(5, integer=True))
        axes.set_xlabel("step")
        axes.set_ylabel(unit)
        axes.grid(alpha=0.3)
        if len(curves) > 1:
            axes.legend(fontsize=8)
    with staged_file(path) as staging:
        figure.savefig(staging, dpi=110)
