import numpy as np
import pytest

from leanface.metrics.estimate import estimate


def test_the_interval_holds_the_mean_and_lies_within_the_extremes():
    result = estimate(np.random.default_rng(1).exponential(size=200))
    assert result is not None
    assert result.smallest <= result.low < result.mean < result.high <= result.largest
    assert result.low < result.p95 < result.largest


def test_equal_samples_leave_no_doubt():
    result = estimate(np.full(20, 0.25))
    assert result is not None
    assert result.low == result.mean == result.high == result.p95 == 0.25


def test_more_samples_make_surer():
    draw = np.random.default_rng(2).normal(size=2000)
    few, many = estimate(draw[:50]), estimate(draw)
    assert few is not None
    assert many is not None
    assert many.high - many.low < (few.high - few.low) / 3


def test_the_interval_holds_the_truth_about_nineteen_times_in_twenty():
    random = np.random.default_rng(3)
    results = [estimate(random.normal(loc=1.0, size=60)) for _ in range(200)]
    hits = sum(result is not None and result.low <= 1.0 <= result.high for result in results)
    assert 180 <= hits <= 198


def test_the_same_samples_give_the_same_answer():
    samples = np.random.default_rng(4).normal(size=30)
    assert estimate(samples) == estimate(samples)


def test_undefined_samples_are_left_out_and_counted():
    defined = estimate(np.array([1.0, 2.0, 3.0]))
    assert estimate(np.array([1.0, np.nan, 2.0, 3.0])) == defined
    assert defined is not None
    assert defined.count == 3
    assert estimate(np.array([np.nan, np.nan])) is None


@pytest.mark.parametrize(
    ("samples", "message"), [(np.zeros((2, 2)), "a vector"), (np.array([1.0, np.inf]), "1 of 2 .* infinite")]
)
def test_what_is_not_a_sample_is_refused(samples, message):
    with pytest.raises(ValueError, match=message):
        estimate(samples)
