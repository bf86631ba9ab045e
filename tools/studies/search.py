"""Measures what a search gains over the uniform network, at equal measured time and after equal distillation.

    python -m tools.studies search docs/results/search

reads what stages prepare and teacher left, and reports/config.yaml for everything but the targets. It searches at the
latency of the uniform network with half of the channels, lets Optuna's TPE search the same patterns with as many cases,
and writes README.md, search.json and search.png. What a stopped run measured is kept.
"""

import logging
from pathlib import Path

import optuna

from leanface import bundle, paths
from leanface.config import load_config
from leanface.device import describe_device
from leanface.files import atomic_write
from leanface.networks.widths import widths_of
from leanface.search.pictures import plot_search
from leanface.search.record import SearchRecord
from leanface.search.search import Searcher, Settings
from leanface.search.solve import Trial
from leanface.search.space import Pattern
from leanface.task import load_task

logger = logging.getLogger(__name__)

SEED = 0
STEPS = 60
"""Of the distillation that all candidates get alike."""

SHARES = (0.9, 0.8, 0.7, 0.6)
"""Of the uniform network's time, at which the searched pattern is measured."""


def tpe(searcher: Searcher, limit: float, cases: int) -> float:
    """Return the least error that Optuna's TPE finds at equal cost, over the same choices, uniform first."""

    def objective(trial: optuna.Trial) -> float:
        space = searcher.space
        factors = {kind: trial.suggest_float(kind, 0.5, 2.0, log=True) for kind in space.kinds}
        dropped = frozenset(block for block in space.blocks if trial.suggest_categorical(block, [False, True]))
        error = searcher.error_of(Pattern(dropped, factors), limit)
        if error is None:
            raise optuna.TrialPruned
        return error

    optuna.logging.set_verbosity(optuna.logging.WARNING)
    study = optuna.create_study(sampler=optuna.samplers.TPESampler(seed=SEED))
    study.enqueue_trial({**dict.fromkeys(searcher.space.kinds, 1.0), **dict.fromkeys(searcher.space.blocks, False)})
    study.optimize(objective, n_trials=cases)
    return study.best_value


def faster(searcher: Searcher, pattern: Pattern, error: float) -> float | None:
    """Return how much less time a pattern needs for an error, as a share; None: not even at the whole cost."""
    before = 1.0, searcher.error_of(pattern, 1.0) or float("inf")
    if before[1] > error:
        return None
    for share in SHARES:
        found = share, searcher.error_of(pattern, share) or float("inf")
        if found[1] > error:  # between the two
            part = (error - before[1]) / (found[1] - before[1])
            return 1 - (before[0] + part * (found[0] - before[0]))
        before = found
    return 1 - before[0]


def readme(record: SearchRecord, tpe_error: float, searched: Trial, uniform_error: float, gain: float | None) -> str:
    """Write the page."""
    device, error = describe_device(), f"teacher_{record.error}"
    uniform = next(one for one in record.candidates if one.name == "uniform")
    lines = [
        "# Is a searched network better than a uniform one?",
        "",
        f"By `python -m tools.studies search docs/results/search` on {device['cpu']} ({device['cores']} cores): "
        f"{record.runtime} {record.precision}, at the latency of the uniform network with half of the channels.",
        "Errors are distances to the original on the val split; no test face was looked at.",
        "",
        f"| Network | Measured (ms) | Predicted (ms) | {record.error} after the re-fit | after equal distillation |",
        "|---|--:|--:|--:|--:|",
    ]
    for one in record.candidates:
        rounds = [f"{errors[error]:.3f}" for errors in one.rounds[:2]]
        dropped = f", without {', '.join(one.architecture.dropped)}" if one.architecture.dropped else ""
        lines.append(f"| {one.name}{dropped} | {one.latency_ms:.3f} | {one.predicted_ms:.3f} | {' | '.join(rounds)} |")
    best = min((one for one in record.candidates if one.name != "uniform"), key=lambda one: one.rounds[1][error])
    off = max(abs(one.predicted_ms / one.latency_ms - 1) for one in record.candidates)
    change = best.rounds[1][error] / uniform.rounds[1][error] - 1
    more = "nothing: it needs more time" if gain is None else f"{100 * gain:.0f} % of the time"
    lines += [
        "",
        f"- At equal time after equal distillation: {100 * change:+.1f} % error (-8 % was hoped for).",
        f"- At the uniform network's error after the re-fit of the search: {more} saved (25 % was hoped for).",
        f"- Pattern search: {searched.error:.3f} against {uniform_error:.3f} uniform; Optuna's TPE with as many cases: "
        f"{tpe_error:.3f}.",
        f"- Times of random networks are predicted within {100 * record.model_error:.1f} % on average (held out), the "
        f"candidates' within {100 * off:.1f} % (5 % was hoped for).",
        "",
        "| Predicted (ms) | Searched | Uniform |",
        "|--:|--:|--:|",
        *(f"| {p.latency_ms:.3f} | {p.error:.3f} | {p.uniform_error or float('nan'):.3f} |" for p in record.front),
        "",
        f"Time: {', '.join(f'{name} {seconds:.0f} s' for name, seconds in record.seconds.items())}.",
        "",
        "![The front, predicted against measured times, widths, and time per step](search.png)",
    ]
    return "\n".join(lines) + "\n"


def main(folder: Path) -> None:
    """Search, compare, and write the page."""
    config = load_config(paths.CONFIG)
    task, (teacher, _) = load_task(config.task, config.data), bundle.load_network(paths.TEACHER)

    def searcher(latency_ms: float) -> Searcher:
        search = config.search.model_copy(update={"targets": {"latency_ms": latency_ms}, "steps": STEPS})
        settings = Settings(search, config.prune, config.distill, config.quantize, config.machine, config.seed)
        return Searcher(teacher, task, config.task.name, bundle.digest(paths.TEACHER), settings)

    search = searcher(searcher(1.0).reference_ms)
    record = search.run()
    best, uniform_error = search.best, search.error_of(Pattern(), 1.0) or float("nan")
    found = tpe(search, 1.0, config.search.cases)
    gain = faster(search, best.pattern, uniform_error)
    folder.mkdir(parents=True, exist_ok=True)
    atomic_write(folder / "search.json", record.model_dump_json(indent=1) + "\n")
    chosen, uniform = search.widths(record.choice.architecture), search.widths(record.uniform)
    plot_search(record, widths_of(teacher), chosen, uniform, folder / "search.png")
    atomic_write(folder / "README.md", readme(record, found, best, uniform_error, gain))
