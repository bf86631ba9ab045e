"""A call that fails while the others are measured."""

import pytest
import torch

from leanface.errors import BackendError
from leanface.runtime.benchmark import Key, _noting  # pyright: ignore[reportPrivateUsage]


@pytest.mark.parametrize("error", [BackendError("no more"), torch.OutOfMemoryError("no more")])
def test_a_failure_is_noted_once_and_the_call_not_made_again(error: Exception):
    calls, failures = [], {}
    key = Key("original_fp32", "torch", 1)

    def fails() -> None:
        calls.append(key)
        raise error

    noting = _noting(failures, key, fails)
    noting()
    noting()
    assert len(calls) == 1
    assert str(failures[key]) == "no more"
    assert isinstance(failures[key], BackendError)


def test_a_call_that_works_is_made_every_time():
    calls, failures = [], {}
    noting = _noting(failures, Key("original_fp32", "torch", 1), lambda: calls.append(1))
    noting()
    noting()
    assert calls == [1, 1]
    assert not failures
