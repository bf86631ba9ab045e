"""Measures what a search gains over the uniform network, at equal measured time and after equal distillation.

    python -m tools.studies search docs/results/search

reads what stages prepare and teacher left, and reports/config.yaml for everything but the targets. It searches at the
latency of the uniform network with half of the channels, draws as many patterns by chance, distills the found network,
a faster one and the uniform one alike, and writes tables.md, search.json, and two pictures. What a stopped run measured
is kept.
"""

import copy
from pathlib import Path

import numpy as np
from matplotlib.figure import Figure
from optuna.samplers import RandomSampler
from pydantic import BaseModel, ConfigDict

from leanface import bundle, paths
from leanface.catalog import RUNTIMES
from leanface.config import Config, load_config
from leanface.device import describe_device
from leanface.distillation.distill import distill
from leanface.files import atomic_write, staged_file
from leanface.metrics.outputs import predict
from leanface.networks.widths import widths_of
from leanface.search import pictures
from leanface.search.latency import REFERENCE_SCALE
from leanface.search.record import Errors, SearchRecord
from leanface.search.search import Searcher, Settings, Timed
from leanface.search.space import UNIFORM, Pattern
from leanface.task import Task, load_task
from leanface.training.fit import Session

SCALES = (0.25, 0.35, 0.7)
"""Shares of the channels of the front's uniform networks, beside the one with half of them and the original."""

STEPS = 100
"""Of the distillation that three networks get alike: a third of the default pipeline's."""


class Network(BaseModel):
    """A network of the front: its time, and its error after a re-fit on as few faces as a case's."""

    model_config = ConfigDict(frozen=True)

    latency_ms: float
    predicted_ms: float
    error: float


class Finished(BaseModel):
    """A network that was re-fitted, distilled and quantized.

    Attributes:
        refitted: errors after the re-fit; `distilled` and `deployed`, in its precision, likewise.
    """

    model_config = ConfigDict(frozen=True)

    title: str
    latency_ms: float
    predicted_ms: float
    refitted: Errors
    distilled: Errors
    deployed: Errors


class Found(BaseModel):
    """All that the study found.

    Attributes:
        search_error: of the best pattern that the search found, after a re-fit on few faces; chance_error likewise, of
            as many patterns that were drawn at random.
        itself: how far the reference's time is from its own, as a share: what timing cannot tell apart.
        dropped: blocks of the searched networks; factors: of their kinds' widths, see `Pattern`.
        front: searched and uniform networks of the same time; at its end is the original, which takes `original_ms`.
        finished: the uniform network, a searched one as fast, and a faster one.
        seconds: by step, the search's own included.
    """

    model_config = ConfigDict(frozen=True)

    image_size: int
    batch: int
    record: SearchRecord
    search_error: float
    chance_error: float
    itself: float
    dropped: tuple[str, ...]
    factors: dict[str, float]
    front: tuple[tuple[Network, Network], ...]
    original_ms: float
    finished: tuple[Finished, Finished, Finished]
    seconds: dict[str, float]

    def error(self, of: Finished) -> float:
        """Return the error to the original after the distillation."""
        return of.distilled[f"teacher_{self.record.error}"]

    @property
    def change(self) -> float:
        """The searched network's error over the uniform one's, less 1."""
        uniform, searched, _ = self.finished
        return self.error(searched) / self.error(uniform) - 1

    @property
    def saved(self) -> float:
        """The share of the time that is saved at the uniform network's error, by the line through both searched ones.

        Negative if more time is needed. At most what the faster one saves: beyond it nothing was measured.
        """
        (uniform, slow, fast), (error, low, high) = zip(
            *((one.latency_ms, self.error(one)) for one in self.finished), strict=True
        )
        part = 1.0 if high <= error else (error - low) / (high - low)
        return 1 - (slow + part * (fast - slow)) / uniform

    @property
    def off(self) -> list[float]:
        """How far predicted times are from measured ones, as shares, of all networks but the random ones."""
        networks = (*self.record.candidates, *self.finished, *(one for pair in self.front for one in pair))
        pairs = {(one.predicted_ms, one.latency_ms) for one in networks}
        return [abs(predicted / measured - 1) for predicted, measured in pairs]


def finish(search: Searcher, config: Config, task: Task, title: str, timed: Timed) -> Finished:
    """Re-fit, distill and quantize a network."""
    optimizer = config.distill.optimizer.model_copy(update={"steps": STEPS})
    settings = config.distill.model_copy(update={"optimizer": optimizer, "start_from": None})

    def measure() -> list[Errors]:
        network, teacher = copy.deepcopy(search.network(timed.architecture)), search.space.network
        refitted, val = search.errors(network), task.split("val")
        session = Session(config.machine, config.seed, paths.SEARCH_CACHE / "distilled")
        distill(network, teacher, task, settings, session, val=val.labeled(predict(teacher, val)))
        return [refitted, search.errors(network), search.deployed_errors(network)]

    refitted, distilled, deployed = search.journal.get(f"{timed.architecture} after {settings}", measure)
    predicted_ms = search.predicted_ms(timed.architecture)
    return Finished(
        title=title,
        latency_ms=timed.latency_ms,
        predicted_ms=predicted_ms,
        refitted=refitted,
        distilled=distilled,
        deployed=deployed,
    )


def front(search: Searcher, pattern: Pattern, uniform: list[Timed]) -> list[tuple[Network, Network]]:
    """Return networks of a pattern, each beside the uniform network of the same measured time."""

    def network(timed: Timed) -> Network:
        error, predicted_ms = search.refit_error(timed.architecture), search.predicted_ms(timed.architecture)
        return Network(latency_ms=timed.latency_ms, predicted_ms=predicted_ms, error=error)

    with search.step("timing the front"):
        pairs = [(search.sized(pattern, one.latency_ms / search.reference_ms), one) for one in uniform]
    with search.step("re-fitting the front"):
        return [(network(searched), network(one)) for searched, one in pairs if searched is not None]


def plot(found: Found, path: Path) -> None:
    """Draw errors over measured times: of the front after the short re-fit, and of the finished networks."""
    figure = Figure(figsize=(8, 4.5), layout="constrained")
    axes = figure.add_subplot()
    for color, title, networks, ends in (
        (pictures.SEARCHED, "searched", [pair[0] for pair in found.front], found.finished[1:]),
        (pictures.UNIFORM, "uniform", [pair[1] for pair in found.front], found.finished[:1]),
    ):
        points = [(one.latency_ms, one.error) for one in networks]
        axes.plot(*zip(*points, strict=True), "o-", color=color, label=f"{title}, after a short re-fit")
        stars = [(one.latency_ms, found.error(one)) for one in ends]
        axes.plot(*zip(*stars, strict=True), "*", markersize=12, color=color, label=f"{title}, distilled")
    axes.plot(found.original_ms, 0, "D", color=pictures.ORIGINAL, label="original")
    axes.set(xlabel=f"measured latency (ms, {found.record.runtime} {found.record.precision})", ylim=(0, None))
    axes.set_ylabel(f"{found.record.error} to the original")
    axes.grid(alpha=0.3)
    axes.legend()
    with staged_file(path) as staging:
        figure.savefig(staging, dpi=110)


def tables(found: Found) -> str:
    """Write what was asked and what was measured, and all networks."""
    record, device, off, error = found.record, describe_device(), found.off, found.record.error
    name = device["gpus"][0]["name"] if RUNTIMES[record.runtime].on_gpu else device["cpu"]
    mean, minutes = sum(off) / len(off), sum(record.seconds.values()) / 60
    asked = [
        ("Error at the uniform network's time", f"{100 * found.change:+.1f} %", "-8 %", found.change <= -0.08),
        ("Time saved at the uniform network's error", f"{100 * found.saved:.0f} %", "25 %", found.saved >= 0.25),
        (
            f"Predicted from measured time: {len(record.timed)} random networks, held out, on average",
            f"{100 * record.model_error:.1f} %",
            "5 %",
            record.model_error <= 0.05,
        ),
        (f"... the {len(off)} others, on average", f"{100 * mean:.1f} %", "5 %", mean <= 0.05),
        ("... the worst of those", f"{100 * max(off):.1f} %", "5 %", max(off) <= 0.05),
        ("The whole search", f"{minutes:.1f} min", "6 min", minutes <= 6),
        (
            f"Error after the short re-fit, against {record.cases} patterns by chance",
            f"{found.search_error:.3f} : {found.chance_error:.3f}",
            "less",
            found.search_error < found.chance_error,
        ),
    ]
    changes = [f"`{kind}` and its like x {factor:.2f}" for kind, factor in found.factors.items()]
    lines = [
        "# Searched and uniform networks: all numbers",
        "",
        f"`python -m tools.studies search` on {name} ({device['cores']} cores of a CPU): {record.runtime} "
        f"{record.precision}, images of {found.image_size} px, {found.batch} per call, at the time of the uniform "
        "network with half of the channels. Errors are means over the val split, to the original; no test face was "
        "looked at.",
        "",
        "| | measured | asked | |",
        "|---|--:|--:|---|",
        *(f"| {what} | {value} | {limit} | {'met' if met else '**missed**'} |" for what, value, limit, met in asked),
        "",
        f"The uniform network, timed in turns with itself, differs by {100 * found.itself:+.1f} %.",
        "",
        "## The finished networks",
        "",
        f"Re-fitted on as many faces, distilled for {STEPS} steps and quantized alike; one training each.",
        "",
        f"| | measured (ms) | predicted (ms) | {error}: re-fitted | distilled | {record.precision} |",
        "|---|--:|--:|--:|--:|--:|",
    ]
    for one in found.finished:
        stages = [f"{errors[f'teacher_{error}']:.3f}" for errors in (one.refitted, one.distilled, one.deployed)]
        lines.append(f"| {one.title} | {one.latency_ms:.3f} | {one.predicted_ms:.3f} | {' | '.join(stages)} |")
    lines += [
        "",
        f"The searched pattern: {', '.join(changes) or 'uniform widths'}; blocks dropped: "
        f"{', '.join(found.dropped) or 'none'}.",
        "",
        "## The front",
        "",
        "Uniform networks, and the same pattern in the same measured time, after a re-fit on few faces and without any "
        "distillation. The pattern was searched at one of these times, not at each. The original takes "
        f"{found.original_ms:.3f} ms.",
        "",
        "| searched (ms) | uniform (ms) | searched | uniform |",
        "|--:|--:|--:|--:|",
        *(
            f"| {searched.latency_ms:.3f} | {uniform.latency_ms:.3f} | {searched.error:.3f} | {uniform.error:.3f} |"
            for searched, uniform in found.front
        ),
        "",
        "## The candidates of the search",
        "",
        f"Brought to the same measured time; {error} after the re-fit.",
        "",
        "| | measured (ms) | predicted (ms) | re-fitted |",
        "|---|--:|--:|--:|",
        *(
            f"| {one.name} | {one.latency_ms:.3f} | {one.predicted_ms:.3f} | {one.errors[f'teacher_{error}']:.3f} |"
            for one in record.candidates
        ),
        "",
        f"Seconds: {', '.join(f'{name} {seconds:.0f}' for name, seconds in found.seconds.items())}.",
    ]
    return "\n".join(lines) + "\n"


def main(folder: Path) -> None:
    """Search, compare, and write tables.md, search.json, front.png and search.png."""
    config = load_config(paths.CONFIG)
    task, (teacher, _) = load_task(config.task, config.data), bundle.load_network(paths.TEACHER)

    def searcher(latency_ms: float) -> Searcher:
        targets = config.search.model_copy(update={"targets": {"latency_ms": latency_ms}})
        settings = Settings(targets, config.prune, config.quantize, config.machine, config.seed)
        return Searcher(teacher, task, config.task.name, bundle.digest(paths.TEACHER), settings)

    search = searcher(searcher(1.0).reference_ms)
    record, space = search.run(), search.space
    best = next(one for one in record.candidates if one.name != "uniform")
    pattern = search.patterns[best.name]
    half = Timed(space.architecture(UNIFORM, REFERENCE_SCALE), search.reference_ms)
    with search.step("timing uniform networks"):
        (again,) = search.timed([half.architecture])
        *uniform, original = search.timed([space.architecture(UNIFORM, scale) for scale in (*SCALES, 1.0)])
    pairs = front(search, pattern, sorted([*uniform, half], key=lambda one: one.latency_ms))
    alike = search.refit_error(half.architecture)
    errors, times_ms = zip(*sorted((searched.error, searched.latency_ms) for searched, _ in pairs), strict=True)
    faster = search.sized(pattern, float(np.interp(alike, errors, times_ms)) / search.reference_ms)
    assert faster is not None
    with search.step("finishing three networks"):
        finished = [
            finish(search, config, task, title, timed)
            for title, timed in (
                ("uniform, half of the channels", half),
                ("searched", Timed(best.architecture, best.latency_ms)),
                ("searched, faster", faster),
            )
        ]
    with search.step("as many patterns by chance"):
        chance = search.trials(1.0, RandomSampler(seed=config.seed))
    found = [search.architecture(each, 1.0) for each in search.patterns.values()]
    results = Found(
        image_size=space.image_size,
        batch=config.search.batch,
        record=record,
        search_error=min(search.refit_error(each) for each in found if each is not None),
        chance_error=chance[0].error,
        itself=again.latency_ms / search.reference_ms - 1,
        dropped=tuple(sorted(pattern.dropped)),
        factors=dict(pattern.factors),
        front=tuple(pairs),
        original_ms=original.latency_ms,
        finished=(finished[0], finished[1], finished[2]),
        seconds=search.seconds,
    )
    folder.mkdir(parents=True, exist_ok=True)
    atomic_write(folder / "search.json", results.model_dump_json(indent=1) + "\n")
    pictures.plot_search(
        record,
        widths_of(teacher),
        search.widths(best.architecture),
        search.widths(half.architecture),
        folder / "search.png",
    )
    plot(results, folder / "front.png")
    atomic_write(folder / "tables.md", tables(results))
