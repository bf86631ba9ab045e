"""Measures what a search gains over the uniform network, at equal measured time and after equal distillation.

    python -m tools.studies search docs/results/search

reads what stages prepare and teacher left, and reports/config.yaml for everything but the targets. It searches at the
latency of the uniform network with half of the channels, lets Optuna's TPE search the same patterns with as many cases,
distills the found network, a faster one and the uniform one alike, and writes tables.md, search.json, and two pictures.
What a stopped run made and measured is kept.
"""

from pathlib import Path

import optuna
from matplotlib.figure import Figure
from pydantic import BaseModel, ConfigDict

from leanface import bundle, paths
from leanface.config import load_config
from leanface.device import describe_device
from leanface.files import atomic_write, staged_file
from leanface.networks.widths import widths_of
from leanface.search import pictures
from leanface.search.latency import REFERENCE_SCALE
from leanface.search.record import Candidate, Errors, SearchRecord
from leanface.search.search import Searcher, Settings
from leanface.search.space import UNIFORM, Pattern
from leanface.task import load_task

SEED = 0

FASTER = 0.75
"""Share of the uniform network's time in which a searched one was hoped to be as accurate."""

SCALES = (0.3, 0.4, 0.7)
"""Shares of the channels of the front's uniform networks, beside the one with half of them."""

STEPS = 200
"""Of the distillation that three networks get alike: half of the default pipeline's."""


class Pair(BaseModel):
    """The searched and the uniform network of one predicted time, and their errors after a re-fit on few faces."""

    model_config = ConfigDict(frozen=True)

    searched: Candidate
    uniform: Candidate
    error: float
    uniform_error: float


class Finished(BaseModel):
    """A network that was re-fitted, distilled and quantized.

    Attributes:
        deployed: its errors in the precision that it is deployed in.
    """

    model_config = ConfigDict(frozen=True)

    title: str
    candidate: Candidate
    deployed: Errors


class Found(BaseModel):
    """All that the study found.

    Attributes:
        pattern_error: of the best pattern that the search found, after a re-fit on few faces; tpe_error likewise.
        itself: how far the reference's time is from its own, as a share: what timing cannot tell apart.
        dropped: blocks of the searched networks; factors: of their kinds' widths, see `Pattern`.
        finished: the uniform network, a searched one as fast, and a faster one.
        seconds: by step, the search's own included.
    """

    model_config = ConfigDict(frozen=True)

    image_size: int
    record: SearchRecord
    pattern_error: float
    tpe_error: float
    itself: float
    dropped: tuple[str, ...]
    factors: dict[str, float]
    pairs: tuple[Pair, ...]
    finished: tuple[Finished, Finished, Finished]
    seconds: dict[str, float]

    def error(self, of: Finished) -> float:
        """Return the error to the original after the distillation."""
        return of.candidate.rounds[-1][f"teacher_{self.record.error}"]

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
            *((one.candidate.latency_ms, self.error(one)) for one in self.finished), strict=True
        )
        part = 1.0 if high <= error else (error - low) / (high - low)
        return 1 - (slow + part * (fast - slow)) / uniform

    @property
    def off(self) -> list[float]:
        """How far predicted times are from measured ones, as shares, of all networks but the random ones."""
        ends = (one.candidate for one in self.finished)
        front = (one for pair in self.pairs for one in (pair.searched, pair.uniform))
        timed = {str(one.architecture): one for one in (*self.record.candidates, *ends, *front)}
        return [abs(one.predicted_ms / one.latency_ms - 1) for one in timed.values()]


def tpe(searcher: Searcher, cases: int) -> float:
    """Return the least error that Optuna's TPE finds at equal cost, over the same choices, uniform first."""

    def objective(trial: optuna.Trial) -> float:
        space = searcher.space
        factors = {kind: trial.suggest_float(kind, 0.5, 2.0, log=True) for kind in space.kinds}
        dropped = frozenset(block for block in space.blocks if trial.suggest_categorical(block, [False, True]))
        error = searcher.error_of(Pattern(dropped, factors), 1.0)
        if error is None:
            raise optuna.TrialPruned
        return error

    optuna.logging.set_verbosity(optuna.logging.WARNING)
    study = optuna.create_study(sampler=optuna.samplers.TPESampler(seed=SEED))
    study.enqueue_trial({**dict.fromkeys(searcher.space.kinds, 1.0), **dict.fromkeys(searcher.space.blocks, False)})
    study.optimize(objective, n_trials=cases)
    return study.best_value


def reference(searcher: Searcher) -> Candidate:
    """Return the uniform network with half of the channels, which all others are timed in turns with."""
    architecture = searcher.space.architecture(UNIFORM, REFERENCE_SCALE)
    return searcher.candidate("uniform", architecture).model_copy(update={"latency_ms": searcher.reference_ms})


def searched(searcher: Searcher, name: str, latency_ms: float) -> Candidate:
    """Return one of the searcher's patterns that is predicted to take as long."""
    found = searcher.architecture(searcher.patterns[name], latency_ms / searcher.reference_ms)
    assert found is not None, f"{name} cannot be so fast"
    return searcher.candidate(name, found)


def front(searcher: Searcher, name: str, middle: Candidate) -> list[Pair]:
    """Return uniform networks, `middle` among them, each beside one of the patterns of the same predicted time."""
    with searcher.step("timing the front"):
        others = [searcher.candidate("uniform", searcher.space.architecture(UNIFORM, scale)) for scale in SCALES]
        uniform = sorted([*others, middle], key=lambda one: one.size_mb)
        networks = [(searched(searcher, name, one.predicted_ms), one) for one in uniform]
    with searcher.step("re-fitting the front"):
        return [
            Pair(
                searched=narrowed,
                uniform=one,
                error=searcher.refit_error(narrowed.architecture),
                uniform_error=searcher.refit_error(one.architecture),
            )
            for narrowed, one in networks
        ]


def finish(searcher: Searcher, title: str, candidate: Candidate) -> Finished:
    """Re-fit, distill and quantize a candidate."""
    candidate, deployed = searcher.finished(candidate, STEPS)
    return Finished(title=title, candidate=candidate, deployed=deployed)


def plot(found: Found, path: Path) -> None:
    """Draw errors over measured times: of connected pairs after the short re-fit, and of the finished networks."""
    figure = Figure(figsize=(8, 4.5), layout="constrained")
    axes = figure.add_subplot()
    for color, title, points in (
        (pictures.SEARCHED, "searched", [(pair.searched.latency_ms, pair.error) for pair in found.pairs]),
        (pictures.UNIFORM, "uniform", [(pair.uniform.latency_ms, pair.uniform_error) for pair in found.pairs]),
    ):
        axes.plot(*zip(*points, strict=True), "o", color=color, label=f"{title}, after a short re-fit")
    for pair in found.pairs:
        times = [pair.searched.latency_ms, pair.uniform.latency_ms]
        axes.plot(times, [pair.error, pair.uniform_error], color=pictures.ORIGINAL, zorder=0)
    for color, title, ends in (
        (pictures.SEARCHED, "searched", found.finished[1:]),
        (pictures.UNIFORM, "uniform", found.finished[:1]),
    ):
        points = [(one.candidate.latency_ms, found.error(one)) for one in ends]
        axes.plot(*zip(*points, strict=True), "*", markersize=12, color=color, label=f"{title}, distilled")
    axes.set(xlabel=f"measured latency (ms, {found.record.runtime} {found.record.precision})", ylim=(0, None))
    axes.set_ylabel(f"{found.record.error} to the original")
    axes.grid(alpha=0.3)
    axes.legend()
    with staged_file(path) as staging:
        figure.savefig(staging, dpi=110)


def tables(found: Found) -> str:
    """Write what was asked and what was measured, and all networks."""
    record, device, off, error = found.record, describe_device(), found.off, found.record.error
    mean = sum(off) / len(off)
    minutes = sum(record.seconds.values()) / 60
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
            "Error after the short re-fit, against Optuna's TPE with as many cases",
            f"{found.pattern_error:.3f} : {found.tpe_error:.3f}",
            "less",
            found.pattern_error < found.tpe_error,
        ),
    ]
    changes = [f"`{kind}` and its like x {factor:.2f}" for kind, factor in found.factors.items()]
    lines = [
        "# Searched and uniform networks: all numbers",
        "",
        f"`python -m tools.studies search` on {device['cpu']} ({device['cores']} cores): {record.runtime} "
        f"{record.precision}, one image of {found.image_size} px, at the time of the uniform network with half of the "
        "channels. Errors are means over the val split, to the original; no test face was looked at.",
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
        f"| | measured (ms) | predicted (ms) | size (MB) | {error}: re-fitted | distilled | {record.precision} |",
        "|---|--:|--:|--:|--:|--:|--:|",
    ]
    for one in found.finished:
        rounds = [errors[f"teacher_{error}"] for errors in (*one.candidate.rounds, one.deployed)]
        costs = f"{one.candidate.latency_ms:.3f} | {one.candidate.predicted_ms:.3f} | {one.candidate.size_mb:.1f}"
        lines.append(f"| {one.title} | {costs} | {' | '.join(f'{value:.3f}' for value in rounds)} |")
    lines += [
        "",
        f"The searched pattern: {', '.join(changes) or 'uniform widths'}; blocks dropped: "
        f"{', '.join(found.dropped) or 'none'}.",
        "",
        "## The front",
        "",
        "Uniform networks, and the same pattern at their predicted time, after a re-fit on few faces and without any "
        "distillation.",
        "",
        "| searched (ms) | uniform (ms) | searched | uniform | |",
        "|--:|--:|--:|--:|--:|",
        *(
            f"| {pair.searched.latency_ms:.3f} | {pair.uniform.latency_ms:.3f} | {pair.error:.3f} "
            f"| {pair.uniform_error:.3f} | {100 * (pair.error / pair.uniform_error - 1):+.1f} % |"
            for pair in found.pairs
        ),
        "",
        "## The candidates of the search",
        "",
        f"{error} after the re-fit and each brief distillation.",
        "",
        "| | measured (ms) | predicted (ms) | re-fitted | distilled |",
        "|---|--:|--:|--:|---|",
    ]
    for one in record.candidates:
        refitted, *rounds = (f"{errors[f'teacher_{error}']:.3f}" for errors in one.rounds)
        lines.append(
            f"| {one.name} | {one.latency_ms:.3f} | {one.predicted_ms:.3f} | {refitted} | {', '.join(rounds)} |"
        )
    lines += [
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
        settings = Settings(targets, config.prune, config.distill, config.quantize, config.machine, config.seed)
        return Searcher(teacher, task, config.task.name, bundle.digest(paths.TEACHER), settings)

    search = searcher(searcher(1.0).reference_ms)
    record = search.run()
    name = next(one.name for one in record.candidates if one.name != "uniform")
    uniform, alike = reference(search), next(one for one in record.candidates if one.name == name)
    faster = searched(search, name, FASTER * search.reference_ms)
    with search.step("finishing three networks"):
        finished = [
            finish(search, title, candidate)
            for title, candidate in (
                ("uniform, half of the channels", uniform),
                ("searched", alike.model_copy(update={"rounds": ()})),
                ("searched, faster", faster),
            )
        ]
    pairs = front(search, name, uniform)
    with search.step("Optuna's TPE"):
        tpe_error = tpe(search, config.search.cases)
    pattern = search.patterns[name]
    found = Found(
        image_size=search.space.image_size,
        record=record,
        tpe_error=tpe_error,
        pattern_error=search.error_of(pattern, 1.0) or float("nan"),
        itself=search.candidate("uniform", uniform.architecture).latency_ms / search.reference_ms - 1,
        dropped=tuple(sorted(pattern.dropped)),
        factors=dict(pattern.factors),
        pairs=tuple(pairs),
        finished=(finished[0], finished[1], finished[2]),
        seconds=search.seconds,
    )
    folder.mkdir(parents=True, exist_ok=True)
    atomic_write(folder / "search.json", found.model_dump_json(indent=1) + "\n")
    pictures.plot_search(
        record,
        widths_of(teacher),
        search.widths(alike.architecture),
        search.widths(uniform.architecture),
        folder / "search.png",
    )
    plot(found, folder / "front.png")
    atomic_write(folder / "tables.md", tables(found))
    search.clear()
