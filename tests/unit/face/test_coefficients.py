"""The layout of the 257 coefficients."""

import pytest
import torch

from leanface.face.coefficients import COUNT, HEAD_SIZES, LAYOUT, join, split


def test_split_and_join_are_inverse() -> None:
    coefficients = torch.rand(4, COUNT)
    assert torch.equal(join(split(coefficients)), coefficients)


def test_groups_tile_the_vector_in_order() -> None:
    ends = [0, *(part.stop for part in LAYOUT.values())]
    assert [part.start for part in LAYOUT.values()] == ends[:-1]
    assert ends[-1] == COUNT == sum(HEAD_SIZES)


def test_another_length_is_refused() -> None:
    with pytest.raises(ValueError, match="257"):
        split(torch.zeros(2, 256))
