"""The robust rule: injected anomalies are found, noise is not, and how often it is all the same."""

import numpy as np
import pytest

from leanface.monitoring.anomaly import Detector, Rule

LATENCY = Rule(side="above", floor=0.05, log=True)
LEVEL = Rule(side="above", floor=1e-3)
DRAWS = 20_000


def alarms(rule: Rule, values) -> np.ndarray:
    detector = Detector(rule)
    verdicts = [detector.update(float(value)) for value in values]
    return np.array([verdict is not None and verdict.anomalous for verdict in verdicts])


@pytest.mark.parametrize(
    ("rule", "noise"),
    [
        (LATENCY, lambda random: random.lognormal(3.0, 0.3, DRAWS)),
        (LEVEL, lambda random: random.normal(5.0, 1.0, DRAWS)),
        (LEVEL, lambda random: random.uniform(0.0, 1.0, DRAWS)),
    ],
    ids=["log-normal", "normal", "uniform"],
)
def test_noise_raises_fewer_than_one_alarm_in_5000_values(rule: Rule, noise) -> None:
    assert alarms(rule, noise(np.random.default_rng(0))).mean() < 1 / 5000


def test_every_latency_that_is_eight_times_as_long_is_found() -> None:
    random = np.random.default_rng(1)
    values = random.lognormal(3.0, 0.2, 3000)
    injected = np.arange(100, 3000, 100)
    values[injected] *= 8
    found = alarms(LATENCY, values)
    assert found[injected].all()
    assert np.delete(found, injected).sum() == 0


def test_earlier_anomalies_do_not_hide_the_next_one() -> None:
    """Ten large values among sixty would triple a standard deviation."""
    random = np.random.default_rng(2)
    values = np.concatenate([random.normal(10, 1, 50), np.full(10, 100.0), [25.0]])
    found = alarms(LEVEL, values)
    assert found[-11:].all()
    window = values[-61:-1]
    assert (values[-1] - window.mean()) / window.std() < 2  # what mean and two sigma would say


def test_a_new_level_is_an_alarm_only_until_it_is_the_normal_one() -> None:
    random = np.random.default_rng(3)
    values = np.concatenate([random.normal(10, 1, 200), random.normal(40, 1, 200)])
    found = alarms(LEVEL, values)
    assert found[200:220].all()
    assert not found[300:].any()


def test_a_deviation_to_the_other_side_is_none() -> None:
    values = [10.0, 11.0] * 20 + [0.0]
    assert not alarms(LEVEL, values).any()
    assert alarms(Rule(side="below", floor=1e-3), values)[-1]


def test_a_constant_series_has_its_floor_as_scale() -> None:
    rule = Rule(side="above", floor=0.01)
    assert not alarms(rule, [0.0] * 30 + [0.05]).any()
    assert alarms(rule, [0.0] * 30 + [0.07])[-1]


def test_noise_of_the_value_itself_counts() -> None:
    detector = Detector(Rule(side="above", floor=0.01))
    for _ in range(30):
        detector.update(0.0)
    verdict = detector.update(0.1, noise=0.1)
    assert verdict is not None
    assert verdict.score == pytest.approx(1.0)


def test_there_is_no_verdict_on_too_few_values() -> None:
    detector = Detector(LEVEL)
    assert all(detector.update(float(value)) is None for value in range(20))
    assert detector.update(10.0) is not None


@pytest.mark.parametrize("value", [float("nan"), float("inf"), 0.0, -1.0])
def test_a_value_that_has_no_logarithm_is_refused(value: float) -> None:
    with pytest.raises(ValueError, match="expected a finite, positive value"):
        Detector(LATENCY).update(value)
