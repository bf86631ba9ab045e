"""Compiles the face's inner loops to machine code with numba."""

from collections.abc import Callable
from typing import Any, ParamSpec, TypeVar, cast

import numba

P = ParamSpec("P")
R = TypeVar("R")


def compiled(**options: Any) -> Callable[[Callable[P, R]], Callable[P, R]]:
    """Make a decorator that compiles a function, which then runs without the GIL.

    The machine code is kept on disk, beside the source or in the user's cache folder. Where neither can be written
    (a read-only installation without a home folder), each process compiles anew; NUMBA_CACHE_DIR names another place.

    Args:
        options: of `numba.njit`.
    """

    def decorate(function: Callable[P, R]) -> Callable[P, R]:
        jit = cast(Callable[..., Callable[[Callable[P, R]], Callable[P, R]]], numba.njit)
        try:
            return jit(nogil=True, cache=True, **options)(function)
        except RuntimeError:  # numba found no folder that it can write to
            return jit(nogil=True, **options)(function)

    return decorate
