"""The monitor as a whole: hours of traffic on a clock of its own, with failures injected."""

import json

import numpy as np
import pytest

from leanface.monitoring.drift import FEATURES, Reference
from leanface.monitoring.monitor import Event, Monitor, Window, markdown

TICK = 10.0


def traffic(monitor: Monitor, ticks: int, seed: int, *, start=0.0, rate=20.0, slower=1.0, failing=0.0) -> list[Event]:
    """Requests at random times, with log-normal latencies and some failures."""
    random = np.random.default_rng(seed)
    events: list[Event] = []
    for tick in range(ticks):
        now = start + tick * TICK
        for time in np.sort(random.uniform(now, now + TICK, random.poisson(rate * TICK))):
            failed = random.random() < failing
            monitor.request(time, slower * random.lognormal(3, 0.3), "worker" if failed else None, failed)
        events += monitor.tick(now + TICK)
    return events


def test_a_quiet_day_raises_fewer_than_one_alarm_in_1000_ticks() -> None:
    """Three series at 2,500 ticks of ten seconds each, at a low rate, where chance is largest."""
    monitor = Monitor(TICK)
    assert len(traffic(monitor, 2500, seed=0, rate=3.0, failing=0.01)) < 2.5


@pytest.mark.parametrize(
    ("change", "series"),
    [({"slower": 4.0}, "p95_ms"), ({"rate": 4.0}, "per_second"), ({"failing": 0.3}, "error_rate")],
    ids=["slow", "few requests", "errors"],
)
def test_an_injected_failure_is_found_at_once_and_named(change, series: str) -> None:
    monitor = Monitor(TICK)
    assert traffic(monitor, 60, seed=1) == []
    events = traffic(monitor, 1, seed=2, start=600.0, **change)
    assert [event.series for event in events] == [series]
    assert monitor.report(610.0).events == tuple(events)


def test_refused_requests_are_counted_and_change_nothing_else() -> None:
    monitor = Monitor(TICK)
    assert traffic(monitor, 60, seed=1) == []
    for _ in range(1000):
        monitor.refused("unauthorized")
    assert traffic(monitor, 1, seed=2, start=600.0) == []
    for _ in range(1000):
        monitor.refused("unauthorized")
    assert monitor.tick(620.0 + TICK)[0].series == "per_second"  # there were no others
    assert monitor.report(630.0).errors == {"unauthorized": 2000}


def test_drift_is_told_once_when_it_begins() -> None:
    random = np.random.default_rng(0)
    monitor = Monitor(TICK, Reference.of(random.normal(size=(400, len(FEATURES)))))
    monitor.faces(random.normal(size=(200, len(FEATURES))))
    assert monitor.tick(10.0) == []
    for now in (20.0, 30.0):
        faces = random.normal(size=(200, len(FEATURES)))
        faces[:, FEATURES.index("yaw_deg")] += 2.0
        monitor.faces(faces)
        expected = ["yaw_deg"] if now == 20.0 else []
        assert [event.series for event in monitor.tick(now)] == expected
    assert monitor.report(30.0).drifted == ["yaw_deg"]


def test_the_report_says_what_happened() -> None:
    random = np.random.default_rng(0)
    monitor = Monitor(TICK, Reference.of(random.normal(size=(400, len(FEATURES)))))
    traffic(monitor, 30, seed=1, failing=0.2)
    monitor.faces(random.normal(3.0, size=(200, len(FEATURES))))
    monitor.tick(310.0)
    report = monitor.report(310.0)
    content = json.loads(json.dumps(report.as_json()))
    assert content["drifted"] == list(FEATURES)
    assert content["errors"]["worker"] > 100
    text = markdown(report)
    assert text.count("**drifted**") == len(FEATURES)
    assert f"- worker: {content['errors']['worker']}" in text
    assert "distribution of sharpness: median" in text
    assert report.metrics()["drifted_features"] == len(FEATURES)


def test_a_monitor_that_saw_nothing_has_a_report() -> None:
    report = Monitor().report(0.0)
    assert report.recent.p95_ms is None
    assert report.metrics() == {"per_second": 0.0, "drifted_features": 0.0, "faces": 0.0}
    assert "None." in markdown(report)


def test_a_window_forgets_what_is_old() -> None:
    window = Window(10.0)
    for now in range(20):
        window.record(float(now), 100.0 * (now < 10), failed=now < 10)
    snapshot = window.snapshot(19.5)
    assert (snapshot.requests, snapshot.p95_ms, snapshot.error_rate, snapshot.per_second) == (10, 0.0, 0.0, 1.0)


def test_a_full_window_knows_its_rate() -> None:
    window = Window(100.0, count=50)
    for index in range(1000):
        window.record(index / 10, 1.0)
    assert window.snapshot(100.0).per_second == pytest.approx(10.0, rel=0.05)
