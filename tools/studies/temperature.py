"""Measures what the temperature of distillation is worth to a classifier: several temperatures, several seeds each.

    python -m tools.studies temperature docs/results/temperature

reads what stages configure, prepare, teacher and prune left of a classifier, such as `task: digits`. Students have the
widths of the pruned network and start from it, or from random weights. All learn from one teacher; a seed decides the
order of the images and the random weights. They are measured on the test split, and nothing is chosen by it.
"""

import logging
import math
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import NamedTuple

import numpy as np
import torch
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure
from scipy import stats
from torch import Tensor, nn

from leanface import bundle, paths
from leanface.catalog import MEASURES
from leanface.config import Config, load_config
from leanface.device import describe_device
from leanface.distillation.distill import distill
from leanface.errors import ConfigError
from leanface.files import atomic_write
from leanface.metrics.estimate import CONFIDENCE, means
from leanface.metrics.outputs import predict
from leanface.networks.widths import widths_of
from leanface.report.sheet import save_figure
from leanface.task import load_task, network_of
from leanface.tasks.classification.evaluation import scores
from leanface.tasks.classification.task import ClassificationTask
from leanface.training.fit import Session
from tools.studies.kept import Kept

logger = logging.getLogger(__name__)

TEMPERATURES, SEEDS = (1.0, 2.0, 4.0, 8.0), (0, 1, 2, 3, 4)
STARTS = {"pruned": "the pruned and re-fitted network", "random": "random weights"}
SHOWN = ("truth_error", "truth_kl", "calibration_error", "teacher_kl", "teacher_agreement")
"""Measures of the table."""


class Interval(NamedTuple):
    """A mean over seeds, and half the width of its 95 % interval."""

    mean: float
    reach: float


Runs = dict[tuple[str, float], list[Mapping[str, float]]]
"""What each seed's student measured, by start and temperature."""


def interval(values: Sequence[float]) -> Interval:
    """Estimate a mean by Student's t distribution: few values, taken for normal."""
    spread = float(np.std(values, ddof=1)) / math.sqrt(len(values))
    return Interval(float(np.mean(values)), float(stats.t.ppf((1 + CONFIDENCE) / 2, len(values) - 1)) * spread)


class Study:
    """The teacher, the pruned network, and the splits."""

    def __init__(self, config: Config) -> None:
        task = load_task(config.task, config.data)
        if not isinstance(task, ClassificationTask):
            raise ConfigError(f"{paths.CONFIG} is of task {config.task.name}; set one that classifies: `task: digits`.")
        self.config, self.task = config, task
        self.teacher, _ = bundle.load_network(paths.TEACHER)
        self.val, self.test = task.split("val"), task.split("test")
        self.answers, self.truth = predict(self.teacher, self.test), self.test.truth()["truth"]

    def student(self, start: str, seed: int) -> nn.Module:
        """Return the pruned network, or one of its widths with random weights."""
        pruned, _ = bundle.load_network(paths.PRUNED)
        if start == "pruned":
            return pruned
        torch.manual_seed(seed)
        return network_of(self.config.task.name, self.config.task.name_sha256).build(widths_of(pruned))

    def measure(self, answers: Tensor) -> dict[str, float]:
        """Average every measure over the test split."""
        return means(scores(self.task, answers, self.truth, self.answers))

    def run(self, start: str, temperature: float, seed: int, report: Path) -> dict[str, float]:
        """Distill one student, and measure it."""
        logger.info("from %s, T = %g, seed %d", STARTS[start], temperature, seed)
        student = self.student(start, seed)
        settings = self.config.distill.model_copy(update={"temperature": temperature})
        distill(student, self.teacher, self.task, settings, Session(self.config.machine, seed, report), val=self.val)
        return self.measure(predict(student, self.test))


def main(folder: Path, seconds: float | None) -> None:
    """Train what was not trained yet, and write README.md and temperature.png.

    Raises:
        ConfigError: the pipeline here is not a classifier's.
        Unfinished: the time was over.
    """
    config = load_config(paths.CONFIG)
    study, kept = Study(config), Kept(paths.REPORTS / "temperature", seconds)
    parents = [bundle.digest(paths.TEACHER), bundle.digest(paths.PRUNED)]
    conditions = [config.distill.model_dump(mode="json"), config.data.model_dump(mode="json"), parents]
    runs: Runs = {}
    for start in STARTS:
        for temperature in TEMPERATURES:
            for seed in SEEDS:
                name = f"{start}_{temperature:g}_{seed}"
                report = paths.REPORTS / "temperature" / name
                found = kept.get(
                    name, conditions, lambda s=start, t=temperature, n=seed, r=report: study.run(s, t, n, r)
                )
                runs.setdefault((start, temperature), []).append(found)
    folder.mkdir(parents=True, exist_ok=True)
    draw(runs, folder / "temperature.png")
    atomic_write(folder / "README.md", page(runs, study))


def draw(runs: Runs, path: Path) -> None:
    """Draw each measure over the temperature, with its interval."""
    figure = Figure(figsize=(3.1 * len(SHOWN), 3.4), dpi=110, layout="constrained", facecolor="white")
    FigureCanvasAgg(figure)
    for axes, name in zip(figure.subplots(1, len(SHOWN)), SHOWN, strict=True):
        measure = MEASURES[name]
        for offset, start in zip((0.97, 1.03), STARTS, strict=True):
            found = [interval([run[name] / measure.scale for run in runs[start, t]]) for t in TEMPERATURES]
            places = [t * offset for t in TEMPERATURES]
            axes.errorbar(
                places, [f.mean for f in found], [f.reach for f in found], fmt="o-", capsize=3, label=STARTS[start]
            )
        axes.set_xscale("log")
        axes.set_xticks(TEMPERATURES, [f"{t:g}" for t in TEMPERATURES])
        axes.minorticks_off()
        axes.set_xlabel("temperature")
        axes.set_title(measure.axis, fontsize=10)
        axes.grid(alpha=0.3)
    figure.legend(*figure.axes[0].get_legend_handles_labels(), loc="outside lower center", ncols=len(STARTS))
    save_figure(figure, path)


def page(runs: Runs, study: Study) -> str:
    """Write the tables, and which differences are beyond chance."""
    settings, subject = study.config.distill, study.task.subject
    original = study.measure(study.answers)
    lines = [
        "# The temperature of distillation",
        "",
        f"`python -m tools.studies temperature`, task `{study.config.task.name}`, on {describe_device()['cpu']}. Each "
        f"student is trained for {settings.optimizer.steps} steps of {settings.optimizer.batch_size} {subject.samples} "
        f"with alpha {settings.alpha:g}, from {len(SEEDS)} seeds, and measured on the {len(study.test)} "
        f"{subject.samples} of the test split. The teacher's error rate is "
        f"{MEASURES['truth_error'].text(original['truth_error'])}. Given are means over the seeds with 95 % intervals "
        "(Student's t). They say how much another training may differ, not how much other test images may. Of the "
        f"{len(STARTS) * (len(TEMPERATURES) - 1) * len(SHOWN)} differences, one or two would be bold by chance.",
    ]
    for start, described in STARTS.items():
        lines += ["", f"## From {described}", "", *_table(TEMPERATURES, {t: runs[start, t] for t in TEMPERATURES})]
        first = runs[start, TEMPERATURES[0]]
        less = {
            t: [
                {name: one[name] - other[name] for name in SHOWN}
                for one, other in zip(runs[start, t], first, strict=True)
            ]
            for t in TEMPERATURES[1:]
        }
        lines += ["", f"Less the same seed's at T = {TEMPERATURES[0]:g}; **bold** where the interval is without 0:", ""]
        lines += _table(TEMPERATURES[1:], less, marked=True)
    lines += ["", "![Each measure over the temperature](temperature.png)", ""]
    return "\n".join(lines)


def _table(
    temperatures: Sequence[float], found: Mapping[float, Sequence[Mapping[str, float]]], *, marked: bool = False
) -> list[str]:
    head = ["T", *(MEASURES[name].axis for name in SHOWN)]
    rows = [[f"{t:g}", *(_cell([run[name] for run in found[t]], name, marked) for name in SHOWN)] for t in temperatures]
    return [f"| {' | '.join(row)} |" for row in (head, ["---", *["---:"] * len(SHOWN)], *rows)]


def _cell(values: Sequence[float], name: str, marked: bool) -> str:
    measure, found = MEASURES[name], interval(values)
    digits = 4 if measure.unit == "nats" else 2
    text = f"{found.mean / measure.scale:.{digits}f} ± {found.reach / measure.scale:.{digits}f}"
    return f"**{text}**" if marked and abs(found.mean) > found.reach else text
