"""Watch a service: requests and faces go in, events and reports come out."""

import math
from collections import Counter, deque
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np
from jaxtyping import Float

from leanface.monitoring.anomaly import Detector, Rule, Verdict
from leanface.monitoring.drift import FEATURES, Drift, Reference, Shift

RULES = {
    "p95_ms": Rule(side="above", floor=0.05, log=True),
    "per_second": Rule(side="below", floor=0.1),
    "error_rate": Rule(side="above", floor=0.01),
}
"""Rules for what is judged at every tick, by field of `Snapshot`."""

TITLES = {
    "p95_ms": "95th percentile of latency (ms)",
    "per_second": "requests per second",
    "error_rate": "share of failed requests",
    **{name: f"distribution of {name}" for name in FEATURES},
}

KEPT_EVENTS = 100


@dataclass(frozen=True)
class Snapshot:
    """Summary of the requests of the last `seconds`; quantiles and rates of no request are None.

    Attributes:
        error_rate: share of requests that the service failed to answer; a refused photo is an answer.
    """

    seconds: float
    requests: int
    per_second: float
    p50_ms: float | None
    p95_ms: float | None
    error_rate: float | None


class Window:
    """Keeps the requests that ended within the last `seconds`, at most the latest `count`."""

    def __init__(self, seconds: float, count: int = 10_000) -> None:
        self.seconds = seconds
        self._ended: deque[tuple[float, float, bool]] = deque(maxlen=count)

    def record(self, now: float, latency_ms: float, failed: bool = False) -> None:
        """Record a request that ended at `now` (seconds of any clock that never runs backwards)."""
        self._ended.append((now, latency_ms, failed))

    def snapshot(self, now: float) -> Snapshot:
        """Summarize what the window holds at `now`."""
        while self._ended and self._ended[0][0] <= now - self.seconds:
            self._ended.popleft()
        count = len(self._ended)
        if not count:
            return Snapshot(self.seconds, 0, 0.0, None, None, None)
        # A full deque spans less time than the window.
        span = now - self._ended[0][0] if count == self._ended.maxlen else self.seconds
        p50, p95 = np.percentile([latency for _, latency, _ in self._ended], (50, 95))
        failed = sum(failed for _, _, failed in self._ended)
        return Snapshot(self.seconds, count, count / max(span, 1e-9), float(p50), float(p95), failed / count)


@dataclass(frozen=True)
class Event:
    """Something that an operator should look at.

    Attributes:
        time: of the caller's clock, in seconds.
        series: a name in `TITLES`.
        text: what was seen and what was expected.
    """

    time: float
    series: str
    text: str


@dataclass(frozen=True)
class Report:
    """The monitor's view at one moment.

    Attributes:
        recent: the last tick's requests.
        expected: medians of the ticks before, by series; None: too few.
        drift: by feature; None: no reference, or too few faces so far.
        errors: since the start, by kind.
        events: the last ones, oldest first.
    """

    recent: Snapshot
    expected: dict[str, float | None]
    drift: dict[str, Shift] | None
    faces: int
    errors: dict[str, int]
    events: tuple[Event, ...]

    def as_json(self) -> dict[str, Any]:
        """Convert to plain values."""
        return asdict(self) | {"drifted": self.drifted}

    @property
    def drifted(self) -> list[str]:
        """List the features whose distribution is no longer the training's."""
        return [name for name, shift in (self.drift or {}).items() if shift.drifted]

    def metrics(self) -> dict[str, float]:
        """List the known numbers, for MLflow."""
        numbers: dict[str, float | None] = {
            name: getattr(self.recent, name) for name in ("p50_ms", "p95_ms", "per_second", "error_rate")
        }
        numbers |= {f"drift/{name}": shift.ks for name, shift in (self.drift or {}).items()}
        numbers |= {"drifted_features": float(len(self.drifted)), "faces": float(self.faces)}
        return {name: value for name, value in numbers.items() if value is not None}


class Monitor:
    """Takes requests and faces as they come, and judges them at every `tick`. Not thread-safe: its caller locks."""

    def __init__(self, tick_seconds: float = 10.0, reference: Reference | None = None) -> None:
        """Begin with nothing seen.

        Args:
            tick_seconds: how often `tick` will be called; a tick's requests are judged together.
            reference: of the served network; without it drift is not watched until `compare_with` is called.
        """
        self.tick_seconds = tick_seconds
        self._window = Window(tick_seconds)
        self._detectors = {name: Detector(rule) for name, rule in RULES.items()}
        self._drift = Drift(reference) if reference else None
        self._drifted: frozenset[str] = frozenset()
        self._faces = 0
        self._errors: Counter[str] = Counter()
        self._events: deque[Event] = deque(maxlen=KEPT_EVENTS)

    def compare_with(self, reference: Reference) -> None:
        """Watch drift from now on."""
        self._drift = Drift(reference)

    def request(self, now: float, latency_ms: float, error: str | None = None, failed: bool = False) -> None:
        """Record a request that was answered.

        Args:
            error: its kind, if it was not answered with a face.
            failed: whether that was the service's fault and not the photo's.
        """
        self._window.record(now, latency_ms, failed)
        if error is not None:
            self._errors[error] += 1

    def refused(self, kind: str) -> None:
        """Count a request that was refused without being looked at, by its kind of error."""
        self._errors[kind] += 1

    def faces(self, features: Float[np.ndarray, "count 5"]) -> None:
        """Record faces that were read; see `leanface.monitoring.drift.features`."""
        self._faces += len(features)
        if self._drift:
            self._drift.record(features)

    def tick(self, now: float) -> list[Event]:
        """Judge the time since the last tick, and return its events."""
        snapshot = self._window.snapshot(now)
        verdicts = self._judge(snapshot)
        events = [Event(now, name, _text(name, verdict)) for name, verdict in verdicts if verdict.anomalous]
        shifts = self._drift.shifts() if self._drift else None
        drifted = frozenset(name for name, shift in (shifts or {}).items() if shift.drifted)
        for name in sorted(drifted - self._drifted):  # reported once, when it begins
            assert shifts is not None
            events.append(Event(now, name, _shift_text(name, shifts[name])))
        self._drifted = drifted
        self._events.extend(events)
        return events

    def report(self, now: float) -> Report:
        """Report what is known at `now`."""
        return Report(
            self._window.snapshot(now),
            {name: detector.median for name, detector in self._detectors.items()},
            self._drift.shifts() if self._drift else None,
            self._faces,
            dict(self._errors),
            tuple(self._events),
        )

    def _judge(self, snapshot: Snapshot) -> list[tuple[str, Verdict]]:
        count, found = snapshot.requests, list[tuple[str, Verdict]]()
        rate = self._detectors["per_second"].median or 0.0
        errors = ((self._detectors["error_rate"].median or 0.0) * count + 1) / (count + 2)
        noise: Mapping[str, float] = {  # what chance alone does to counts: Poisson's and the binomial's deviations
            "per_second": math.sqrt(max(rate, 1 / snapshot.seconds) / snapshot.seconds),
            "error_rate": math.sqrt(errors * (1 - errors) / max(count, 1)),
        }
        for name, detector in self._detectors.items():
            value = getattr(snapshot, name)
            verdict = None if value is None else detector.update(value, noise.get(name, 0.0))
            if verdict is not None:
                found.append((name, verdict))
        return found


def markdown(report: Report) -> str:
    """Write a report for people."""
    recent = report.recent
    lines = [
        "# Monitoring",
        "",
        f"The last {recent.seconds:g} s: {recent.requests} requests; {report.faces} faces since the start.",
        "",
        "| | now | median before |",
        "|---|--:|--:|",
    ]
    for name in RULES:
        lines.append(f"| {TITLES[name]} | {_cell(getattr(recent, name))} | {_cell(report.expected[name])} |")
    lines += ["", "## Input", ""]
    if report.drift is None:
        lines.append("Not compared with the training's: no reference, or too few faces so far.")
    else:
        lines += ["| | now (median) | training | KS distance | limit | |", "|---|--:|--:|--:|--:|---|"]
        for name, shift in report.drift.items():
            verdict = "**drifted**" if shift.drifted else "as trained"
            numbers = (shift.median, shift.reference_median, shift.ks, shift.limit)
            lines.append(f"| {name} | {' | '.join(map(_cell, numbers))} | {verdict} |")
    lines += ["", "## Errors", ""]
    lines += [f"- {kind}: {count}" for kind, count in sorted(report.errors.items())] or ["None."]
    lines += ["", "## Events", ""]
    lines += [f"- {event.time:.0f} s: {event.text}" for event in report.events] or ["None."]
    return "\n".join(lines) + "\n"


def _cell(value: float | None) -> str:
    return "-" if value is None else f"{value:.3g}"


def _text(name: str, verdict: Verdict) -> str:
    return f"{TITLES[name]}: {verdict.value:.3g}, was {verdict.median:.3g} ({verdict.score:.1f} deviations)"


def _shift_text(name: str, shift: Shift) -> str:
    return (
        f"{TITLES[name]}: median {shift.median:.3g}, in training {shift.reference_median:.3g} "
        f"(KS distance {shift.ks:.2f}, by chance up to {shift.limit:.2f})"
    )
