"""Compare trials: which ones no other trial beats, and which one to take."""

import collections
import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from leanface.catalog import FACE, Subject
from leanface.errors import ArtifactError
from leanface.files import Json
from leanface.report.summary import Summary, VariantSummary

COSTS = ("latency_ms", "size_mb", "macs")
"""What a smaller error is paid with."""

RULE = "the fastest trial that passes all gates, by its interval's lower end"


@dataclass(frozen=True)
class TrialResult:
    """One trial, as its report summarized it.

    Attributes:
        name: of its DVC experiment.
        params: the parameters in which the trials differ, by dotted name.
        summary: None for a trial that failed.
        reason: why it failed.
    """

    name: str
    params: dict[str, Any]
    summary: Summary | None
    reason: str | None = None

    @property
    def passed(self) -> bool:
        """Whether it passed all gates, and had any."""
        return self.summary is not None and bool(self.summary.gates) and self.summary.passed

    @property
    def failed_gates(self) -> list[str]:
        """Names of the gates that it failed."""
        gates = {} if self.summary is None else self.summary.gates
        return [name for name, gate in gates.items() if not gate.passed]

    @property
    def deployed(self) -> VariantSummary | None:
        """The numbers of its deployed network."""
        return None if self.summary is None else self.summary.deployed

    def value(self, measure: str) -> float | None:
        """Return one number of its deployed network; None where it is unknown."""
        return None if self.deployed is None else self.deployed.measures.get(measure)

    @property
    def device(self) -> Json:
        """The record of the machine that measured it."""
        return {} if self.summary is None else self.summary.device


def trial_result(name: str, params: Mapping[str, Any], summary: Json) -> TrialResult:
    """Read the contents of a trial's summary.json.

    Raises:
        ArtifactError: another version of LeanFace wrote it.
    """
    return TrialResult(name, dict(params), Summary.parse(summary, name))


def error_measure(trials: Sequence[TrialResult]) -> str:
    """Choose the error that all have: against ground truth; of samples without labels against the original."""
    subject = subject_of(trials)
    labeled = all(trial.value(subject.error) is not None for trial in trials if trial.reason is None)
    return subject.error if labeled else subject.teacher_error


def subject_of(trials: Sequence[TrialResult]) -> Subject:
    """Return how the trials' task is spoken of.

    Raises:
        ArtifactError: they are of several tasks, whose errors cannot be compared.
    """
    tasks: dict[str, list[str]] = {}
    for trial in trials:
        if trial.summary is not None:
            tasks.setdefault(trial.summary.task, []).append(trial.name)
    if len(tasks) > 1:
        listed = "; ".join(f"{task}: {', '.join(names[:5])}" for task, names in tasks.items())
        raise ArtifactError(
            f"these trials are of different tasks ({listed}); name those of one: `leanface compare A B`."
        )
    return next((trial.summary.subject for trial in trials if trial.summary is not None), FACE)


def front(trials: Sequence[TrialResult], error: str, cost: str) -> set[str]:
    """Name the trials that no other one beats: as good in both and better in one.

    Trials that lack either value are not among them.
    """
    known = sorted(
        (price, mistake, trial.name)
        for trial in trials
        if (price := trial.value(cost)) is not None and (mistake := trial.value(error)) is not None
    )
    best, chosen = float("inf"), set[str]()
    last: tuple[float, float] | None = None
    for price, mistake, name in known:
        if mistake < best or (price, mistake) == last:
            chosen.add(name)
            best, last = mistake, (price, mistake)
    return chosen


def on_one_machine(trials: Sequence[TrialResult]) -> tuple[list[TrialResult], list[TrialResult]]:
    """Split off the trials of the machine that measured most of them; the others' times are not comparable."""
    machines = collections.Counter(json.dumps(trial.device, sort_keys=True) for trial in trials if trial.reason is None)
    most = machines.most_common(1)[0][0] if machines else ""
    comparable, others = list[TrialResult](), list[TrialResult]()
    for trial in trials:
        if trial.reason is None:
            (comparable if json.dumps(trial.device, sort_keys=True) == most else others).append(trial)
    return comparable, others


def by_speed(trials: Sequence[TrialResult]) -> list[TrialResult]:
    """Sort by the lower end of the speed-up's interval, the fastest first; at equal speed by error.

    By the ratio to the original, which each trial measured in turns with its own network: trials ran at different
    times, and a shared machine is not equally fast at all of them. A lucky measurement has a wide interval.
    """
    error = error_measure(trials)
    return sorted(trials, key=lambda trial: (-_sure_speedup(trial), trial.value(error) or 0.0))


def _sure_speedup(trial: TrialResult) -> float:
    known = None if trial.deployed is None else trial.deployed.interval("speedup")
    return (trial.value("speedup") or 0.0) if known is None else known[0]


def recommended(trials: Sequence[TrialResult]) -> TrialResult | None:
    """Choose by `RULE`, among trials of one machine; at equal speed the one with the smaller error."""
    comparable, _ = on_one_machine(trials)
    return next(iter(by_speed([trial for trial in comparable if trial.passed])), None)
