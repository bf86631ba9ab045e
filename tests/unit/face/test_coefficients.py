"""The layout of the 257 coefficients."""

import numpy as np
import pytest
import torch

from leanface.face.coefficients import COUNT, HEAD_SIZES, LAYOUT, Coefficients, split


def test_the_groups_one_after_another_are_the_vector() -> None:
    parts = Coefficients(*(torch.rand(4, size) for size in (80, 64, 80, 3, 27, 3)))
    for part, again in zip(parts, split(torch.cat(parts, -1)), strict=True):
        assert torch.equal(part, again)
    vector = np.arange(COUNT)
    np.testing.assert_array_equal(np.concatenate(split(vector)), vector)


def test_split_gives_views_and_keeps_leading_dimensions() -> None:
    coefficients = torch.zeros(2, 5, COUNT)
    parts = split(coefficients)
    parts.angles_rad.fill_(1.0)
    assert coefficients.sum() == 2 * 5 * 3
    assert parts.lighting.shape == (2, 5, 27)
    assert torch.equal(torch.cat(parts, -1), coefficients)


def test_groups_tile_the_vector_in_order() -> None:
    ends = [0, *(part.stop for part in LAYOUT.values())]
    assert [part.start for part in LAYOUT.values()] == ends[:-1]
    assert ends[-1] == COUNT == sum(HEAD_SIZES)


def test_heads_and_groups_share_their_borders() -> None:
    """The network's heads differ from the groups in the translation alone, which is split in two."""
    borders = torch.tensor(HEAD_SIZES).cumsum(0).tolist()
    assert {part.stop for part in LAYOUT.values()} == set(borders) - {256}


@pytest.mark.parametrize("length", [0, 256, 258])
def test_another_length_is_refused(length: int) -> None:
    with pytest.raises(ValueError, match="257"):
        split(torch.zeros(2, length))
