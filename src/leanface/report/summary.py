"""Build summary.json: the headline numbers of each variant, and whether the deployed network passes its gates."""

from collections.abc import Mapping
from typing import Any, Literal, Self

from pydantic import BaseModel, ConfigDict, ValidationError

from leanface import paths
from leanface.catalog import BASELINE, DEPLOYED, EVALUATED, FACE, MEASURES, TASKS, Subject, know
from leanface.config import Gates
from leanface.errors import ArtifactError
from leanface.metrics.measurements import BenchmarkRecord, Measurement, fastest_first
from leanface.metrics.ratio import WIDE, MedianEstimate
from leanface.report.sources import Sources

Interval = tuple[float, float]

TRIAL_RUNS = {"tiny": "Scale tiny only tests that the pipeline runs: its numbers mean nothing."}
"""What is to be said of a run, by its scale."""


class VariantSummary(BaseModel):
    """One variant's numbers; besides these fields it has each of its measures, by name in the catalog.

    Attributes:
        runtime: the fastest at batch 1, which latency, speed-up and memory are of.
        intervals: 95 % intervals of some measures.
    """

    model_config = ConfigDict(frozen=True, extra="allow")
    __pydantic_extra__: dict[str, float | None]  # pyright: ignore[reportIncompatibleVariableOverride]

    runtime: str
    intervals: dict[str, Interval]

    @property
    def measures(self) -> dict[str, float | None]:
        """By name; None where it was not measured."""
        return self.__pydantic_extra__

    def interval(self, measure: str) -> Interval | None:
        """Return the 95 % interval; an exact number's own value twice; None: not known."""
        value = self.measures.get(measure)
        return (value, value) if value is not None and MEASURES[measure].exact else self.intervals.get(measure)

    def text(self, measure: str) -> str:
        """Return the value, rounded."""
        return MEASURES[measure].text(self.measures.get(measure))

    def interval_text(self, measure: str) -> str:
        """Return the interval, rounded; "" for an exact or unknown number."""
        return MEASURES[measure].interval_text(self.intervals.get(measure))

    @property
    def speedup_too_wide(self) -> bool:
        """Whether the speed-up's interval says next to nothing, or is not known."""
        found = self.intervals.get("speedup")
        return found is None or found[1] / found[0] - 1 > WIDE


class GateResult(BaseModel):
    """A gate's limit, the value reached, and whether the worse end of the value's interval passes."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    limit: float
    value: float | None
    interval: Interval | None
    passed: bool
    bound: Literal["min", "max"]


class NotRun(BaseModel):
    """What could not be run on this machine, and why."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    variants: tuple[str, ...]
    runtime: str
    reason: str


class Summary(BaseModel):
    """The contents of summary.json.

    Attributes:
        task: what the networks are for.
        own_subject: how a user's own task is spoken of; LeanFace's are in the catalog.
        scale: of the configuration.
        device: the record of the machine that measured it.
        not_measured: why a measure is unknown for all variants.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    task: str = "face"
    own_subject: Subject | None = None
    scale: str
    image_size: int
    device: dict[str, Any]
    variants: dict[str, VariantSummary]
    gates: dict[str, GateResult]
    not_measured: dict[str, str]
    not_run: tuple[NotRun, ...]

    @classmethod
    def parse(cls, contents: Mapping[str, Any], source: str) -> Self:
        """Read the contents of a summary.json.

        Raises:
            ArtifactError: they are not of this version.
        """
        try:
            return cls.model_validate(contents)
        except ValidationError as error:
            first = error.errors()[0]
            where = ".".join(map(str, first["loc"]))
            raise ArtifactError(
                f"the summary of {source} was written by another version of LeanFace ({where}: {first['msg']}); "
                "run it again with `dvc repro`."
            ) from None

    @property
    def subject(self) -> Subject:
        """How the task is spoken of."""
        return subject_in(self.task, self.own_subject)

    @property
    def error(self) -> str:
        """The error that all variants have: to ground truth, or without labels to the original."""
        subject = self.subject
        labeled = any(variant.measures.get(subject.error) is not None for variant in self.variants.values())
        return subject.error if labeled else subject.teacher_error

    @property
    def passed(self) -> bool:
        """Whether all gates are passed."""
        return all(gate.passed for gate in self.gates.values())

    @property
    def warning(self) -> str | None:
        """What has to be said of such a run before anything else."""
        return TRIAL_RUNS.get(self.scale)

    @property
    def deployed(self) -> VariantSummary:
        """The network that the gates are about."""
        return self.variants[DEPLOYED]


def subject_in(task: str, own: Subject | None) -> Subject:
    """Return how the task of a summary is spoken of; its own measures are in `MEASURES` from then on."""
    return TASKS[task].subject if own is None and task in TASKS else know(own or FACE)


def summarize(sources: Sources, task: str, subject: Subject, gates: Gates) -> Summary:
    """Collect the headline numbers and check the gates.

    Raises:
        ArtifactError: a variant or the baseline was not measured.
    """
    variants = {name: _variant(name, sources, subject) for name in EVALUATED}
    return Summary(
        task=task,
        own_subject=None if task in TASKS else subject,
        scale=sources.settings["scale"],
        image_size=sources.benchmark.image_size,
        device=sources.device,
        variants=variants,
        gates=check_gates(gates, variants[DEPLOYED]),
        not_measured=_not_measured(sources.benchmark),
        not_run=_not_run(sources.benchmark),
    )


def headline(summary: Summary) -> dict[str, float | None]:
    """Choose the few numbers of the deployed network that `dvc exp show` and `dvc metrics show` list."""
    return {name: summary.deployed.measures.get(name) for name in summary.subject.headline}


def check_gates(gates: Gates, deployed: VariantSummary) -> dict[str, GateResult]:
    """Compare each gate's limit with the worse end of the value's 95 % interval.

    A value that is undefined, or measured too briefly to have an interval, fails.
    """
    results: dict[str, GateResult] = {}
    for gate, limit in gates.items():
        name, _, bound = gate.rpartition("_")
        interval, at_least = deployed.interval(name), bound == "min"
        passed = interval is not None and (interval[0] >= limit if at_least else interval[1] <= limit)
        results[name] = GateResult(
            limit=limit,
            value=deployed.measures.get(name),
            interval=None if MEASURES[name].exact else interval,
            passed=passed,
            bound="min" if at_least else "max",
        )
    return results


def baseline(benchmark: BenchmarkRecord, batch: int) -> Measurement:
    """Find the row that speed-ups at this batch size are relative to.

    Raises:
        ArtifactError: it is not there.
    """
    rows = fastest_first(
        benchmark.rows, variant=BASELINE, runtime=benchmark.baseline_runtime or "", batch=batch, streams=1
    )
    if not rows:
        raise ArtifactError(
            f"{paths.BENCHMARK} has no row of {BASELINE} in PyTorch at batch {batch}, to which speeds are "
            "relative; put 1 into benchmark.batches and run `dvc repro`."
        )
    return rows[0]


def _variant(name: str, sources: Sources, subject: Subject) -> VariantSummary:
    benchmark, evaluation = sources.benchmark, sources.evaluations[name]
    best = fastest_first(benchmark.rows, variant=name, batch=1, streams=1)
    if not best:
        raise ArtifactError(f"{paths.BENCHMARK} has no row of {name} at batch 1 that ran; run `dvc repro benchmark`.")
    fastest, base = best[0], baseline(benchmark, 1)
    largest = max(row.batch for row in benchmark.rows)
    bulk = [row.speedup for row in fastest_first(benchmark.rows, variant=name, batch=largest) if row.speedup]
    ratios: dict[str, MedianEstimate | None] = {
        "speedup": fastest.speedup,
        "throughput_ratio": max(bulk, key=lambda found: found.value, default=None),
    }
    prune = sources.stages.get("prune", {})
    measured: dict[str, float | None] = {measure: evaluation.mean(measure) for measure in MEASURES}
    measured |= {measure: found and found.value for measure, found in ratios.items()}
    measured |= {
        "latency_ms": fastest.latency_ms,
        "size_mb": benchmark.files[name] / 1e6,
        "size_ratio": benchmark.files[BASELINE] / benchmark.files[name],
        "macs": prune.get("teacher/macs" if name == BASELINE else "pruned/macs"),
        "memory_mb": fastest.memory_mb,
        "energy_ratio": _energy_ratio(base, fastest),
    }
    quality = {measure: evaluation.measures.get(measure) for measure in subject.summary}
    intervals = {measure: (found.low, found.high) for measure, found in quality.items() if found is not None}
    for measure, found in (ratios | {"latency_ms": fastest.latency}).items():
        if found is not None and found.low is not None and found.high is not None:
            intervals[measure] = (found.low, found.high)
    numbers = {measure: measured.get(measure) for measure in subject.summary}
    return VariantSummary.model_validate({"runtime": fastest.runtime, "intervals": intervals} | numbers)


def _not_run(benchmark: BenchmarkRecord) -> tuple[NotRun, ...]:
    variants: dict[tuple[str, str], list[str]] = {}  # by runtime and reason: most are the same for all
    for row in (*benchmark.rows, *benchmark.end_to_end):
        if row.not_run is not None:
            known = variants.setdefault((row.runtime, row.not_run), [])
            known += [row.variant] if row.variant not in known else []
    return tuple(
        NotRun(variants=tuple(names), runtime=runtime, reason=reason) for (runtime, reason), names in variants.items()
    )


def _not_measured(benchmark: BenchmarkRecord) -> dict[str, str]:
    reason = baseline(benchmark, 1).energy_reason
    return {} if reason is None else {"energy_ratio": reason}


def _energy_ratio(base: Measurement, own: Measurement) -> float | None:
    """Return None if either was not counted, or by another counter: a GPU's joules are not a processor's."""
    if base.energy_mj is None or own.energy_mj is None or own.energy_source != base.energy_source:
        return None
    return base.energy_mj / own.energy_mj
