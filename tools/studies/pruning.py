"""Compares pruning criteria, with and without the residual streams, at equal MACs and before any training.

    python -m tools.studies pruning docs/results/pruning

reads what stages prepare, teacher and analyze left (and nothing of the test split), and writes comparison.csv and
comparison.png. Everything but the cases is as in reports/config.yaml.
"""

import csv
import itertools
import logging
import time
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import torch
from matplotlib.figure import Figure

from leanface import bundle, paths
from leanface.config import Prune, load_config
from leanface.files import staged_file
from leanface.metrics.outputs import mean_errors
from leanface.pruning.cost import macs_and_parameters
from leanface.pruning.groups import ChannelGraph
from leanface.pruning.plan import counts_left, macs_share
from leanface.pruning.prune import prune
from leanface.tasks.face.task import FaceTask

logger = logging.getLogger(__name__)

CRITERIA: dict[str, dict[str, Any]] = {
    "magnitude L2": {"name": "magnitude", "options": {"p": 2}},
    "magnitude L1": {"name": "magnitude", "options": {"p": 1}},
    "batch-norm scale": {"name": "batch_norm_scale", "options": {}},
    "FPGM": {"name": "fpgm", "options": {}},
    "Taylor": {"name": "taylor", "options": {}},
    "Hessian": {"name": "hessian", "options": {}},
    "random": {"name": "random", "options": {}},
}
RESIDUAL = {"streams pruned": True, "streams kept": False}
STATES = {"pruned": "#9aa4b0", "compensated": "#0969da"}
RANDOM_SEEDS = 3
MEASURES = ("vertex_mm", "identity_mm", "expression_mm", "albedo_levels", "rotation_deg")


class Case(NamedTuple):
    """One setting, and the changes to the configuration that make it."""

    criterion: str
    residual: str
    changes: dict[str, Any]
    seed: int = 0


Row = dict[str, float | int | str]


def cases() -> Iterator[Case]:
    """List every criterion with and without the streams; the control several times."""
    for (criterion, importance), (residual, pruned) in itertools.product(CRITERIA.items(), RESIDUAL.items()):
        for seed in range(RANDOM_SEEDS if criterion == "random" else 1):
            yield Case(criterion, residual, {"importance": importance, "residual": pruned}, seed)


def compare(base: Prune, chosen: Iterable[Case], device: torch.device) -> Iterator[Row]:
    """Prune by each case and measure on the val split, against the original.

    All get the share of MACs that is left if every group loses `base.ratio` of its channels.
    """
    task = FaceTask.load()
    teacher = bundle.load_network(paths.TEACHER)[0].to(device)
    train, val = task.split("train"), task.split("val")
    images = train.head(base.calibration_count).images.to(device)
    faces = val.head(len(val)).images.to(device)
    original_macs, original_parameters = macs_and_parameters(teacher, val.image_size)
    groups = ChannelGraph(teacher).groups()
    channels = {name: group.channels for name, group in groups.items()}
    uniform = counts_left(channels, dict.fromkeys(channels, base.ratio), base.round_to)
    target = {"macs": macs_share(teacher, groups, val.image_size)(uniform)}
    with torch.inference_mode():
        answers = teacher(faces).cpu()
    for case in chosen:
        started = time.perf_counter()
        config = Prune.model_validate(base.model_dump() | {"target": target, "compensate": True} | case.changes)
        result = prune(teacher, config, images, task, case.seed)
        row: Row = {name: value for name, value in case._asdict().items() if name != "changes"}
        left, parameters = macs_and_parameters(result.network, val.image_size)
        row |= {"macs_share": left / original_macs, "parameters_share": parameters / original_parameters}
        for state, network in result.states.items():
            with torch.inference_mode():
                found = mean_errors(task, network(faces).cpu(), answers)
            row |= {f"{state}_{measure}": found[measure] for measure in MEASURES}
        row["seconds"] = time.perf_counter() - started
        logger.info(
            "%s", " ".join(f"{value:.3f}" if isinstance(value, float) else str(value) for value in row.values())
        )
        yield row


def write_rows(rows: Sequence[Row], path: Path) -> None:
    """As CSV."""
    with staged_file(path) as staging, staging.open("w", newline="") as file:
        writer = csv.DictWriter(file, list(rows[0]))
        writer.writeheader()
        writer.writerows({k: f"{v:.5g}" if isinstance(v, float) else v for k, v in row.items()} for row in rows)


def plot_rows(rows: Sequence[Row], path: Path) -> None:
    """Plot the vertex error of every case before and after the re-fit."""
    names, ticks = list(CRITERIA), [1, 1.5, 2, 3, 5]
    figure = Figure(figsize=(7, 3.4), layout="constrained")
    panels = figure.subplots(1, len(RESIDUAL), sharex=True, sharey=True, squeeze=False)
    for residual, axes in zip(RESIDUAL, panels.flat, strict=True):
        shown = [row for row in rows if row["residual"] == residual]
        places = [names.index(str(row["criterion"])) for row in shown]
        for state, color in STATES.items():
            values = [float(row[f"{state}_vertex_mm"]) for row in shown]
            axes.scatter(values, places, color=color, s=26, label=state, zorder=3)
        axes.set_title(residual, fontsize=9)
        axes.set_xscale("log")
        axes.set_xticks(ticks, [f"{tick:g}" for tick in ticks])
        axes.minorticks_off()
        axes.grid(alpha=0.3)
    panels[0, 0].set_yticks(range(len(names)), names)
    panels[0, 0].invert_yaxis()
    figure.legend(*panels[0, 0].get_legend_handles_labels(), loc="outside upper right", ncols=2)
    figure.supxlabel("vertex error against the original on val (mm)")
    with staged_file(path) as staging:
        figure.savefig(staging, dpi=110)


def main(folder: Path) -> None:
    """Compare all cases, on the GPU if there is one."""
    base = load_config(paths.CONFIG).prune
    device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
    torch.backends.cudnn.allow_tf32 = False
    folder.mkdir(parents=True, exist_ok=True)
    rows: list[Row] = []
    for row in compare(base, cases(), device):
        rows.append(row)
        write_rows(rows, folder / "comparison.csv")
    plot_rows(rows, folder / "comparison.png")
