"""Measures what a search gains over the uniform network, at equal measured time and after equal distillation.

    python -m tools.studies search docs/results/search

reads what stages prepare and teacher left, and reports/config.yaml for everything but the targets. It searches at the
latency of the uniform network with half of the channels, lets Optuna's TPE search the same patterns with as many cases,
makes the found network, a faster one and the uniform one as the pipeline would, and writes README.md, search.json and
two pictures. What a stopped run made and measured is kept.
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
from leanface.search.pictures import SEARCHED, UNIFORM, plot_search
from leanface.search.record import Candidate, Errors, SearchRecord
from leanface.search.search import Searcher, Settings
from leanface.search.space import Pattern
from leanface.task import load_task

SEED = 0

FASTER = 0.75
"""Share of the uniform network's time in which a searched one was hoped to be as accurate."""

SHARES = (0.4, 0.55, FASTER, 1.0, 1.5, 2.2)
"""Of the uniform network's time, at which both are measured."""


class Pair(BaseModel):
    """The searched and the uniform network that take as long, and their errors after a re-fit on few faces."""

    model_config = ConfigDict(frozen=True)

    searched: Candidate
    uniform: Candidate
    error: float
    uniform_error: float


class Finished(BaseModel):
    """A network as the pipeline makes it: re-fitted on all samples and distilled in full, then quantized.

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
        trial_error: of the best pattern after a re-fit on few faces; uniform_error and tpe_error likewise.
        dropped: blocks of the searched networks; factors: of their kinds' widths, see `Pattern`.
        seconds: by step, the search's own included.
    """

    model_config = ConfigDict(frozen=True)

    image_size: int
    record: SearchRecord
    trial_error: float
    uniform_error: float
    tpe_error: float
    dropped: tuple[str, ...]
    factors: dict[str, float]
    pairs: tuple[Pair, ...]
    uniform: Finished
    searched: Finished
    faster: Finished
    seconds: dict[str, float]

    def error(self, of: Finished) -> float:
        """Return the error to the original after the distillation."""
        return of.candidate.rounds[-1][f"teacher_{self.record.error}"]

    @property
    def change(self) -> float:
        """The searched network's error over the uniform one's, less 1."""
        return self.error(self.searched) / self.error(self.uniform) - 1

    @property
    def saved(self) -> float:
        """The share of the time that is saved at the uniform network's error, by the line through both searched ones.

        Negative if more time is needed. At most what the faster one saves: beyond it nothing was measured.
        """
        ends = self.searched, self.faster, self.uniform
        (slow, fast, uniform), (low, high, error) = zip(
            *((one.candidate.latency_ms, self.error(one)) for one in ends), strict=True
        )
        part = 1.0 if high <= error else (error - low) / (high - low)
        return 1 - (slow + part * (fast - slow)) / uniform

    @property
    def off(self) -> list[float]:
        """How far predicted times are from measured ones, as shares, of all networks but the random ones."""
        ends = (one.candidate for one in (self.uniform, self.searched, self.faster))
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


def fronts(searcher: Searcher, name: str) -> list[Pair]:
    """Return one of the searcher's patterns beside the uniform one, at several measured times."""
    pairs: list[Pair] = []
    for share in SHARES:
        searched, uniform = searcher.sized(name, share), searcher.sized("uniform", share)
        if searched is not None and uniform is not None:
            error, uniform_error = (searcher.refit_error(one.architecture) for one in (searched, uniform))
            pairs.append(Pair(searched=searched, uniform=uniform, error=error, uniform_error=uniform_error))
    return pairs


def finish(searcher: Searcher, title: str, name: str, share: float) -> Finished:
    """Make one of the searcher's patterns, at a share of the time, as the pipeline would."""
    candidate = searcher.sized(name, share)
    assert candidate is not None, f"{name} cannot be so fast"
    candidate, deployed = searcher.finished(candidate)
    return Finished(title=title, candidate=candidate, deployed=deployed)


def plot(found: Found, path: Path) -> None:
    """Draw errors over measured times: after the short re-fit, and of the finished networks."""
    figure = Figure(figsize=(8, 4.5), layout="constrained")
    axes = figure.add_subplot()
    for color, title, points in (
        (SEARCHED, "searched", [(pair.searched.latency_ms, pair.error) for pair in found.pairs]),
        (UNIFORM, "uniform", [(pair.uniform.latency_ms, pair.uniform_error) for pair in found.pairs]),
    ):
        axes.plot(*zip(*points, strict=True), "o-", color=color, label=f"{title}, after a short re-fit")
    for color, title, ends in (
        (SEARCHED, "searched", (found.faster, found.searched)),
        (UNIFORM, "uniform", (found.uniform,)),
    ):
        points = [(one.candidate.latency_ms, found.error(one)) for one in ends]
        axes.plot(*zip(*points, strict=True), "*--", markersize=12, color=color, label=f"{title}, distilled in full")
    axes.set(xlabel=f"measured latency (ms, {found.record.runtime} {found.record.precision})", ylim=(0, None))
    axes.set_ylabel(f"{found.record.error} to the original")
    axes.grid(alpha=0.3)
    axes.legend()
    with staged_file(path) as staging:
        figure.savefig(staging, dpi=110)


def readme(found: Found) -> str:
    """Write the page."""
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
            f"{found.trial_error:.3f} : {found.tpe_error:.3f}",
            "less",
            found.trial_error < found.tpe_error,
        ),
    ]
    changes = [f"`{kind}` and its like x {factor:.2f}" for kind, factor in found.factors.items()]
    lines = [
        "# Is a searched network better than a uniform one?",
        "",
        f"`python -m tools.studies search` on {device['cpu']} ({device['cores']} cores): {record.runtime} "
        f"{record.precision}, one image of {found.image_size} px, at the time of the uniform network with half of the "
        "channels. Errors are means over the val split, to the original; no test face was looked at.",
        "",
        "| | measured | asked | |",
        "|---|--:|--:|---|",
        *(f"| {what} | {value} | {limit} | {'met' if met else '**missed**'} |" for what, value, limit, met in asked),
        "",
        "## The finished networks",
        "",
        "Re-fitted, distilled and quantized alike, as the default pipeline does it; one training each.",
        "",
        f"| | measured (ms) | predicted (ms) | size (MB) | {error}: re-fitted | distilled | {record.precision} |",
        "|---|--:|--:|--:|--:|--:|--:|",
    ]
    for one in (found.uniform, found.searched, found.faster):
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
        "The same pattern, wider and narrower, beside the uniform network of the same time, after a re-fit on "
        "few faces and without any distillation. Both were brought to that time by measuring.",
        "",
        "| searched (ms) | uniform (ms) | searched | uniform | |",
        "|--:|--:|--:|--:|--:|",
        *(
            f"| {pair.searched.latency_ms:.3f} | {pair.uniform.latency_ms:.3f} | {pair.error:.3f} "
            f"| {pair.uniform_error:.3f} | {100 * (pair.error / pair.uniform_error - 1):+.1f} % |"
            for pair in found.pairs
        ),
        "",
        "![Error over measured time](front.png)",
        "",
        "## The search itself",
        "",
        "![The front by predicted times, predicted against measured times, widths, and time per step](search.png)",
        "",
        f"Seconds: {', '.join(f'{name} {seconds:.0f}' for name, seconds in found.seconds.items())}.",
    ]
    return "\n".join(lines) + "\n"


def main(folder: Path) -> None:
    """Search, compare, and write the page."""
    config = load_config(paths.CONFIG)
    task, (teacher, _) = load_task(config.task, config.data), bundle.load_network(paths.TEACHER)

    def searcher(latency_ms: float) -> Searcher:
        targets = config.search.model_copy(update={"targets": {"latency_ms": latency_ms}})
        settings = Settings(targets, config.prune, config.distill, config.quantize, config.machine, config.seed)
        return Searcher(teacher, task, config.task.name, bundle.digest(paths.TEACHER), settings)

    search = searcher(searcher(1.0).reference_ms)
    record = search.run()
    with search.step("Optuna's TPE"):
        tpe_error = tpe(search, config.search.cases)
    name = next(one.name for one in record.candidates if one.name != "uniform")
    with search.step("measuring the front"):
        pairs = fronts(search, name)
    with search.step("finishing three networks"):
        uniform = finish(search, "uniform", "uniform", 1.0)
        searched = finish(search, "searched", name, 1.0)
        faster = finish(search, f"searched, {100 * (1 - FASTER):.0f} % faster", name, FASTER)
    pattern = search.patterns[name]
    errors = {each: search.error_of(search.patterns[each], 1.0) or float("nan") for each in search.patterns}
    found = Found(
        image_size=search.space.image_size,
        record=record,
        trial_error=min(errors.values()),
        uniform_error=errors["uniform"],
        tpe_error=tpe_error,
        dropped=tuple(sorted(pattern.dropped)),
        factors=dict(pattern.factors),
        pairs=tuple(pairs),
        uniform=uniform,
        searched=searched,
        faster=faster,
        seconds=search.seconds,
    )
    folder.mkdir(parents=True, exist_ok=True)
    atomic_write(folder / "search.json", found.model_dump_json(indent=1) + "\n")
    chosen, like = (search.widths(each.candidate.architecture) for each in (searched, uniform))
    plot_search(record, widths_of(teacher), chosen, like, folder / "search.png")
    plot(found, folder / "front.png")
    atomic_write(folder / "README.md", readme(found))
    search.clear()
