"""Targets are read with their units, and refused if they make no sense."""

import pytest

from leanface.errors import ConfigError
from leanface.search.targets import Target, parse_targets

ERRORS = ("vertex_mm", "rotation_deg")


def test_targets_are_read() -> None:
    given = {"latency_ms": 1.5, "size_mb": "3 MB", "vertex_mm": "+0.2 mm", "rotation_deg": "2"}
    assert parse_targets(given, ERRORS) == [
        Target("latency_ms", 1.5, False),
        Target("size_mb", 3.0, False),
        Target("vertex_mm", 0.2, True),
        Target("rotation_deg", 2.0, False),
    ]


@pytest.mark.parametrize(
    ("measure", "value", "message"),
    [
        ("latency", 1.0, "there is no measure latency. Did you mean latency_ms"),
        ("vertex_cm", 1.0, "there is no measure vertex_cm. Did you mean vertex_mm"),
        ("latency_ms", "1 s", r"latency_ms is in ms, got '1 s'"),
        ("vertex_mm", "+0.2 cm", r"vertex_mm is in mm"),
        ("latency_ms", "fast", r"expected a number of ms, got 'fast'"),
        ("latency_ms", float("nan"), "expected a number"),
        ("latency_ms", 0, "must be above 0"),
        ("size_mb", "+1", "must be above 0, and not relative"),
        ("vertex_mm", "-0.1", "is not better than the original"),
    ],
)
def test_what_makes_no_sense_is_refused(measure: str, value: float | str, message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        parse_targets({measure: value}, ERRORS)


def test_limits_are_upper_ones_but_for_throughput() -> None:
    assert Target("latency_ms", 1.0, False).is_met(1.0)
    assert not Target("latency_ms", 1.0, False).is_met(1.1)
    assert Target("images_per_second", 100.0, False).is_met(120.0)
    assert not Target("images_per_second", 100.0, False).is_met(80.0)
    assert Target("vertex_mm", 0.2, True).is_met(1.2, original=1.1)
    assert not Target("vertex_mm", 0.2, True).is_met(1.4, original=1.1)
