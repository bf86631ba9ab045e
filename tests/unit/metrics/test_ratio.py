import numpy as np
import pytest

from leanface.metrics.ratio import PAIRS_MIN, estimate_median, paired_ratio


def test_the_interval_holds_the_median_at_least_nineteen_times_in_twenty():
    random = np.random.default_rng(0)
    for count in (PAIRS_MIN, 9, 16):
        samples = random.lognormal(size=(4000, count))  # its median is 1
        found = [estimate_median(list(row)) for row in samples]
        held = np.mean([it.low <= 1.0 <= it.high for it in found])
        assert 0.94 < held < 0.99, count


def test_more_pairs_narrow_the_interval():
    values = list(np.random.default_rng(0).lognormal(size=64))
    widths = [estimate_median(values[:count]).width for count in (8, 32, 64)]
    assert widths == sorted(widths, reverse=True)


@pytest.mark.parametrize("count", range(1, PAIRS_MIN))
def test_fewer_pairs_than_an_interval_needs_have_none(count):
    found = estimate_median([1.0] * count)
    assert (found.value, found.low, found.high, found.count) == (1.0, None, None, count)
    assert found.too_wide


def test_a_ratio_is_of_pairs_not_of_medians():
    """The machine is slow for half of the pairs; each pair's ratio is 3 all the same."""
    own = [1.0, 10.0] * 4
    found = paired_ratio([3 * time for time in own], own)
    assert (found.value, found.low, found.high) == (3.0, 3.0, 3.0)
    assert not found.too_wide


def test_what_cannot_be_paired_is_refused():
    with pytest.raises(ValueError, match="shorter"):
        paired_ratio([1.0, 2.0], [1.0])
    with pytest.raises(ValueError, match="at least one"):
        paired_ratio([], [])
