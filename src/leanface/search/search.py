"""From targets to an architecture: model the time, share out width and depth, check the best few, and say yes or no."""

import copy
import hashlib
import itertools
import logging
import tempfile
import time
from collections.abc import Generator, Mapping, Sequence
from contextlib import contextmanager
from functools import cached_property
from pathlib import Path
from typing import NamedTuple

from optuna.samplers import BaseSampler, TPESampler
from torch import nn

from leanface import paths
from leanface.config import Benchmark, Machine, Prune, Quantize, Search
from leanface.errors import LeanFaceError
from leanface.networks.quantized import Quantizer
from leanface.networks.widths import Widths
from leanface.pruning.plan import Architecture
from leanface.quantization.calibrate import calibrate, round_calibrated
from leanface.runtime.benchmark import Entry, benchmark_networks
from leanface.search.latency import Deployment, LatencyModel, latency_model
from leanface.search.record import Candidate, Errors, Journal, Point, SearchRecord
from leanface.search.refit import Refitter
from leanface.search.solve import Trial, improve
from leanface.search.space import UNIFORM, Pattern, Space
from leanface.search.targets import Target, parse_targets
from leanface.task import Task, Track

logger = logging.getLogger(__name__)

WHOLE = 4
"""Candidates are re-fitted on so many times the samples of a case; stage prune takes all of them for the chosen one."""

MARGIN = 1.01
"""A measured cost may exceed its limit by so much: timing does not tell less apart."""

NEAR = (0.9, 0.95, 1.0, 1.05, 1.1)
"""Of the allowed cost, by predicted time: networks so near it are timed in turns."""

CHECKS = 2
"""How often, if they turn out all cheaper or all dearer."""

FRONT = (0.6, 1.0, 1.7)
"""Times of the front's points, as shares of the one that was searched at."""

WITHOUT_COSTS = 0.25
"""Share of the original's time that is searched at if no cost is limited."""

DIGESTED = 8
"""Samples of a split that tell it from others."""

BISECTIONS = 3
"""How often a network that meets its errors is made half as much smaller, or larger again."""


class UnreachableError(LeanFaceError):
    """No network that was found meets the targets."""


class Settings(NamedTuple):
    """The sections of the configuration that a search reads."""

    search: Search
    prune: Prune
    quantize: Quantize
    machine: Machine
    seed: int


class Timed(NamedTuple):
    """An architecture with its time, measured, as the machine was when the latency model was made."""

    architecture: Architecture
    latency_ms: float


class Searcher:
    """One search. What it makes and measures is kept in `paths.SEARCH_CACHE`, so that a stopped one goes on.

    Attributes:
        space: of architectures.
        patterns: the best that `run` found, by their candidate's name, and the uniform one.
        journal: of what was measured.
        seconds: by step.
    """

    def __init__(
        self,
        teacher: nn.Module,
        task: Task,
        task_name: str,
        original: str,
        settings: Settings,
        track: Track | None = None,
    ) -> None:
        """Check the targets before anything takes long.

        Args:
            teacher: the original, in eval mode.
            original: digest of its bundle.

        Raises:
            ConfigError: a target, a unit or the precision is not valid.
            BackendError: the runtime is not known.
        """
        self._task, self._original, self._quantize, self._track = task, original, settings.quantize, track
        self._settings, self._seed = settings.search, settings.seed
        self.space = Space(teacher, task.split("val").image_size, settings.prune.round_to)
        self._deployment = Deployment(self.space, task_name, settings.search, settings.quantize.quantize_residual)
        self._refitter = Refitter(teacher, task, settings.prune, settings.machine, settings.seed)
        self._of_original = self._refitter.original()
        names = [name.removeprefix("teacher_") for name in self._of_original if name.startswith("teacher_")]
        self._targets = parse_targets(settings.search.targets, names)
        self._limited = [target for target in self._targets if target.measure in names]
        main = task.subject.teacher_error.removeprefix("teacher_")
        self._error = self._limited[0].measure if self._limited else main
        conditions = {
            name: section.model_dump(mode="json") for name, section in settings._asdict().items() if name != "seed"
        }
        for free in ("targets", "cases", "candidates"):
            del conditions["search"][free]
        conditions |= {"seed": settings.seed, "machine": self._deployment.machine(original), "samples": _digest(task)}
        self.journal = Journal(paths.SEARCH_CACHE / "cases.json", conditions)
        self._whole: dict[str, nn.Module] = {}
        self.patterns = {"uniform": UNIFORM}
        self.seconds: dict[str, float] = {}

    def run(self) -> SearchRecord:
        """Search; the record's `answer` says so if the targets cannot be met.

        Raises:
            UnreachableError: not even the smallest network is cheap enough.
        """
        with self.step("timing random networks"):
            logger.info("search: times are predicted within %.1f %% on average", 100 * self._model.error)
        self.seconds["timing random networks"] = self._model.seconds
        limit = 1.0 if self._limits() else WITHOUT_COSTS
        if self.architecture(UNIFORM, limit) is None:
            least = self.space.architecture(UNIFORM, 0.0)
            raise UnreachableError(
                f"no network is so cheap in {self._settings.runtime} {self._settings.precision}: the narrowest takes "
                f"{self.predicted_ms(least):.3g} ms and {self._size_mb(least):.3g} MB. Allow more, or another runtime."
            )
        with self.step("sharing out width and depth"):
            self.patterns = self._patterns(limit)
        first = next(iter(self.patterns))
        with self.step("drawing the front"):
            front = tuple(self._front(self.patterns[first], limit))
        with self.step("checking the best few"):
            if self._limited:
                limit = self._smallest(self.patterns[first], limit)
            sized = {name: self.sized(pattern, limit) for name, pattern in self.patterns.items()}
            candidates = [self.candidate(name, found) for name, found in sized.items() if found is not None]
            candidates.sort(key=lambda one: one.errors[f"teacher_{self._error}"])
        best = candidates[0]
        with self.step("measuring the chosen one"):
            costs = self._costs(best)
            deployed = self.journal.get(
                f"deployed {_key(best.architecture)}", lambda: self.deployed_errors(self.network(best.architecture))
            )
        uniforms = [one.architecture for one in candidates if one.name == "uniform"]
        return SearchRecord(
            targets=self._settings.targets,
            runtime=self._settings.runtime,
            precision=self._settings.precision,
            error=self._error,
            cases=self._settings.cases,
            model_error=self._model.error,
            timed=self._model.timed,
            front=front,
            candidates=tuple(candidates),
            chosen=best.name,
            uniform=uniforms[0] if uniforms else self.space.architecture(UNIFORM, 0.0),
            deployed=deployed,
            costs=costs,
            answer=self._answer(best, costs, deployed, front),
            seconds=self.seconds,
        )

    def widths(self, architecture: Architecture) -> Widths:
        """Return the widths of the layers that an architecture has."""
        return self.space.widths(architecture)

    @cached_property
    def _model(self) -> LatencyModel:
        file = paths.SEARCH_CACHE / f"{self._settings.runtime}_{self._settings.precision}.json"
        return latency_model(self._deployment, self._original, file, _Progress("network"))

    @property
    def reference_ms(self) -> float:
        """The time of the uniform network with half of the channels."""
        return self._model.reference_ms

    @contextmanager
    def step(self, name: str) -> Generator[None]:
        """Count the time of a block, with what an earlier run spent on the results that it takes over."""
        start = time.monotonic() + self.journal.replayed
        logger.info("search: %s", name)
        yield
        self.seconds[name] = time.monotonic() + self.journal.replayed - start

    def predicted_ms(self, architecture: Architecture) -> float:
        """Predict the time of an architecture."""
        return self._model.latency_ms(self.space.shapes(architecture))

    def _size_mb(self, architecture: Architecture) -> float:
        return self._model.size_mb(self.space.shapes(architecture))

    def _limits(self) -> dict[str, float]:
        """Return the largest latency and file size that the targets allow, if they do."""
        limits: dict[str, float] = {}
        for target in self._targets:
            if target.measure == "size_mb":
                limits["size_mb"] = target.limit
            if target.measure in ("latency_ms", "images_per_second"):
                least = target.limit if target.measure == "latency_ms" else 1e3 * self._settings.batch / target.limit
                limits["latency_ms"] = min(least, limits.get("latency_ms", least))
        return limits

    def _load(self, architecture: Architecture, latency_ms: float | None = None) -> float:
        """Return the largest cost over its limit, or the time over the original's if there is no limit.

        Args:
            latency_ms: as measured; by default it is predicted.
        """
        limits = self._limits() or {"latency_ms": self.predicted_ms(self.space.architecture(UNIFORM, 1.0))}
        loads = {"latency_ms": latency_ms or self.predicted_ms(architecture), "size_mb": self._size_mb(architecture)}
        return max(loads[name] / limit for name, limit in limits.items())

    def architecture(self, pattern: Pattern, limit: float) -> Architecture | None:
        """Return a pattern as wide as it may be at a cost, by predicted time; None: it cannot be so cheap."""
        return self.space.at_cost(pattern, limit, self._load)

    def refit_error(self, architecture: Architecture) -> float:
        """Return the error to the original after a re-fit on few samples."""

        def measure() -> float:
            network = self._refitter.network(architecture, self._settings.faces)
            return self.errors(network)[f"teacher_{self._error}"]

        return float(self.journal.get(f"case {_key(architecture)}", measure))

    def _patterns(self, limit: float) -> dict[str, Pattern]:
        """Return the best patterns, and the uniform one, by name."""
        trials = self.trials(limit, TPESampler(seed=self._seed))
        best = [trial.pattern for trial in trials if not trial.pattern.is_uniform][: self._settings.candidates - 1]
        return {**{f"searched {rank}": pattern for rank, pattern in enumerate(best, 1)}, "uniform": UNIFORM}

    def trials(self, limit: float, sampler: BaseSampler) -> list[Trial]:
        """Measure `search.cases` patterns at a cost, the uniform one among them; return the best first."""
        progress, count = _Progress("case"), self._settings.cases
        done = itertools.count(1)

        def error(pattern: Pattern) -> float | None:
            architecture = self.architecture(pattern, limit)
            found = None if architecture is None else self.refit_error(architecture)
            progress(next(done), count)
            return found

        return improve(self.space.kinds, self.space.blocks, error, count, sampler)

    def _front(self, best: Pattern, limit: float) -> Generator[Point]:
        for share in FRONT:
            searched, uniform = (self.architecture(pattern, share * limit) for pattern in (best, UNIFORM))
            if searched is not None:
                yield Point(
                    latency_ms=self.predicted_ms(searched),
                    size_mb=self._size_mb(searched),
                    error=self.refit_error(searched),
                    uniform_error=None if uniform is None else self.refit_error(uniform),
                )

    def sized(self, pattern: Pattern, limit: float) -> Timed | None:
        """Return a pattern as wide as it may be at a cost, by measured time; None: it cannot be so cheap.

        What the model takes for right is timed in turns with somewhat narrower and wider networks. If all of them cost
        too much, the narrowest is returned.
        """
        predicted, best = limit, None
        for _ in range(CHECKS):
            found = [self.architecture(pattern, share * predicted) for share in NEAR]
            distinct = {_key(each): each for each in found if each is not None}
            if not distinct:
                break
            near = self.timed(list(distinct.values()))
            cheap = [each for each in near if self._load(*each) <= MARGIN * limit]
            best = cheap[-1] if cheap else best or near[0]
            if cheap and best is not near[-1]:
                break
            predicted *= limit / self._load(*best)
        return best

    def timed(self, architectures: Sequence[Architecture]) -> list[Timed]:
        """Export architectures, and time them in turns."""
        ratios = self.journal.get(
            f"times {' '.join(map(_key, architectures))}",
            lambda: [row.ratio for row in self._deployment.measure(architectures)],
        )
        return [Timed(each, self.reference_ms * ratio) for each, ratio in zip(architectures, ratios, strict=True)]

    def candidate(self, name: str, timed: Timed) -> Candidate:
        """Measure the errors of an architecture after a whole re-fit."""
        architecture, errors = timed.architecture, self._whole_errors(timed.architecture)
        found = Candidate(
            name=name,
            architecture=architecture,
            latency_ms=timed.latency_ms,
            predicted_ms=self.predicted_ms(architecture),
            size_mb=self._size_mb(architecture),
            errors=errors,
        )
        logger.info("search: %s: %s %.3f", name, self._error, errors[f"teacher_{self._error}"])
        if self._track is not None:
            parameters = {"name": name, "dropped": architecture.dropped}
            self._track(f"search: {name}", parameters, errors | {"latency_ms": found.latency_ms})
        return found

    def network(self, architecture: Architecture) -> nn.Module:
        """Return an architecture, re-fitted on `WHOLE` times the samples of a case. It is kept for the next call."""
        key = _key(architecture)
        if key not in self._whole:
            self._whole[key] = self._refitter.network(architecture, WHOLE * self._settings.faces)
        return self._whole[key]

    def _whole_errors(self, architecture: Architecture) -> Errors:
        return self.journal.get(f"whole {_key(architecture)}", lambda: self.errors(self.network(architecture)))

    def _smallest(self, pattern: Pattern, limit: float) -> float:
        """Return the smallest limit at which a pattern meets the error's limits, or nearly the given one."""
        low, high = limit / 4, limit if self._limits() else 1.0
        for _ in range(BISECTIONS):
            middle = (low * high) ** 0.5
            sized = self.sized(pattern, middle)
            is_met = sized is not None and self._is_near(self._whole_errors(sized.architecture))
            low, high = (low, middle) if is_met else (middle, high)
        return high

    def _is_near(self, errors: Errors) -> bool:
        """Tell whether errors meet all of their limits."""
        return all(target.is_met(*self._pair(target, errors)) for target in self._limited)

    def _pair(self, target: Target, errors: Errors) -> tuple[float, float]:
        """Return a network's error and the original's, to the truth where there is one."""
        name = f"truth_{target.measure}" if f"truth_{target.measure}" in errors else f"teacher_{target.measure}"
        return errors[name], self._of_original[name]

    def errors(self, network: nn.Module) -> Errors:
        """Measure a network on the val split."""
        return self._refitter.errors(network)

    def deployed_errors(self, network: nn.Module) -> Errors:
        """Measure a network in the precision that it is deployed in; FP16 counts as FP32."""
        if self._settings.precision == "int8":
            settings, train = self._quantize, self._task.split("train")
            quantizer = Quantizer(residual=settings.quantize_residual)
            network = calibrate(copy.deepcopy(network), settings, quantizer, train)
            round_calibrated(network, settings, train)
        return self.errors(network)

    def _costs(self, candidate: Candidate) -> dict[str, float]:
        """Measure what a network costs; of memory and energy only what is limited and can be measured here."""
        costs = {
            "latency_ms": candidate.latency_ms,
            "images_per_second": 1e3 * self._settings.batch / candidate.latency_ms,
            "size_mb": candidate.size_mb,
        }
        if {"memory_mb", "energy_mj"} & {target.measure for target in self._targets}:
            with tempfile.TemporaryDirectory() as scratch:
                path = self._deployment.export(candidate.architecture, Path(scratch))
                (row, *_) = benchmark_networks(
                    [Entry("searched", self._settings.runtime, path, (1,))], self._benchmark(), self.space.image_size
                )
            costs |= {name: value for name in ("memory_mb", "energy_mj") if (value := getattr(row, name)) is not None}
        return costs

    def _benchmark(self) -> Benchmark:
        batches = tuple(sorted({1, self._settings.batch}))
        return Benchmark(
            batches=batches, streams=(1,), warmup=3, window=5, windows_max=6, interval=1.0,
            threads=self._settings.threads, energy_seconds=0.5,
        )  # fmt: skip

    def _answer(
        self, candidate: Candidate, costs: Mapping[str, float], errors: Errors, front: Sequence[Point]
    ) -> str | None:
        """Say which targets are missed, and by how much; None: they are met."""
        missed: list[str] = []
        for target in self._targets:
            if target in self._limited:
                value, original = self._pair(target, errors)
            elif target.measure in costs:
                value, original = costs[target.measure], 0.0
            else:
                missed.append(f"{target.title} cannot be measured on this machine")
                continue
            limit = target.allowed(original)
            slack = MARGIN if target.measure == "latency_ms" else 1.0
            if not target.is_met(value / slack, original):
                missed.append(f"{target.title} is {target.text(value)}, and {target.text(limit)} was asked")
        if not missed:
            return None
        lines = [
            "; ".join(missed) + ".",
            "The nearest network that was found: " + self._described(candidate, costs) + ".",
        ]
        return "\n".join([*lines, *self._advice(candidate, front)])

    def _described(self, candidate: Candidate, costs: Mapping[str, float]) -> str:
        error = Target(self._error, 0.0, False).text(candidate.errors[f"teacher_{self._error}"])
        return f"{costs['latency_ms']:.3g} ms, {costs['size_mb']:.3g} MB, {error} from the original"

    def _advice(self, candidate: Candidate, front: Sequence[Point]) -> list[str]:
        """Say what more time would give, by the front, and what else may."""
        here = min(front, key=lambda point: abs(point.latency_ms - candidate.latency_ms))
        better = [point for point in front if point.latency_ms > 1.05 * here.latency_ms and point.error < here.error]
        gains = [
            f"Another {point.latency_ms - here.latency_ms:.2g} ms would take about "
            f"{100 * (1 - point.error / here.error):.0f} % off the distance to the original."
            for point in better
        ]
        return [*gains, "A longer distillation, more samples for the re-fit, or a GPU may give more."]


def _digest(task: Task) -> str:
    """Tell samples apart by their first ones."""
    images = [task.split(name).head(DIGESTED).images for name in ("train", "val")]
    return hashlib.sha256(b"".join(each.numpy().tobytes() for each in images)).hexdigest()


def _key(architecture: Architecture) -> str:
    return _hash(repr((architecture.dropped, sorted(architecture.counts.items()))))


def _hash(text: str) -> str:
    return hashlib.sha256(text.encode()).hexdigest()[:24]


class _Progress:
    """Says how many of something are done, and how long the others may take; now and then."""

    def __init__(self, what: str) -> None:
        self._what, self._start, self._said, self._first = what, time.monotonic(), 0.0, None

    def __call__(self, done: int, of: int) -> None:
        self._first = done - 1 if self._first is None else self._first
        now = time.monotonic()
        if now - self._said > 5 or done == of:
            left = (now - self._start) / (done - self._first) * (of - done)
            logger.info("search: %s %d of at most %d, %s left", self._what, done, of, f"{left:.0f} s")
            self._said = now
