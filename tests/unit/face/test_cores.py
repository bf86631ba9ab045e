"""Work divided among cores is done once, in order, and in forked processes too."""

import multiprocessing
import os
import time

import pytest

from leanface.face.cores import bands, on_all_cores


@pytest.mark.parametrize("size", [1, 7, 1024])
def test_bands_hold_each_row_once(size: int) -> None:
    rows = [row for first, end in bands(size) for row in range(first, end)]
    assert rows == list(range(size))


def test_results_come_in_order_and_errors_arrive() -> None:
    def late(number: int) -> int:
        time.sleep(0.01 * (3 - number))
        return 10 // number

    assert on_all_cores(late, [1, 2, 3]) == [10, 5, 3]
    with pytest.raises(ZeroDivisionError):
        on_all_cores(late, [1, 0])


@pytest.mark.skipif(not hasattr(os, "fork"), reason="forks are POSIX's")
@pytest.mark.filterwarnings("ignore:.*fork.*:DeprecationWarning")
def test_a_forked_process_has_threads_of_its_own() -> None:
    assert on_all_cores(abs, [-1]) == [1]
    child = multiprocessing.get_context("fork").Process(target=on_all_cores, args=(abs, [-1, -2]))
    child.start()
    child.join(20)
    assert child.exitcode == 0
