"""The networks that a search chooses from."""

import numpy as np
import pytest
from torch import nn

from leanface.networks.resnet import FaceReconstructionNet
from leanface.networks.widths import widths_of, with_widths
from leanface.pruning.cost import macs_and_parameters
from leanface.search.space import UNIFORM, Pattern, Space, residual_blocks
from leanface.tasks.digits.network import SmallResNet


@pytest.fixture
def space(small_network: FaceReconstructionNet) -> Space:
    return Space(small_network, 64, round_to=4)


def macs(space: Space, pattern: Pattern, scale: float) -> int:
    shapes = space.shapes(space.architecture(pattern, scale))
    return sum(shape.kernel * shape.positions * shape.inputs * shape.outputs for shape in shapes)


def test_blocks_are_those_that_add_to_what_they_read(space: Space) -> None:
    assert space.blocks == tuple(
        f"backbone.layer{stage}.{block}"
        for stage, depth in enumerate((3, 4, 6, 3), start=1)
        for block in range(1, depth)
    )
    assert residual_blocks(SmallResNet().eval()) == ("layer1.0", *(f"layer{stage}.1" for stage in (1, 2, 3, 4)))


def test_a_network_that_adds_nothing_has_no_blocks() -> None:
    plain = nn.Sequential(nn.Conv2d(3, 8, 3), nn.ReLU(), nn.Sequential(nn.Conv2d(8, 8, 3), nn.ReLU()))
    assert residual_blocks(plain.eval()) == ()


def test_the_whole_is_the_original(space: Space, small_network: FaceReconstructionNet) -> None:
    assert space.widths(space.architecture(UNIFORM, 1.0)) == widths_of(small_network)


@pytest.mark.parametrize("seed", range(4))
def test_shapes_are_those_of_the_network_that_is_built(space: Space, seed: int) -> None:
    architecture = space.random(np.random.default_rng(seed))
    network = with_widths(space.network, space.widths(architecture), 64)
    assert widths_of(network) == space.widths(architecture)
    shapes = space.shapes(architecture)
    expected = macs_and_parameters(network, 64)[0]
    assert sum(shape.kernel * shape.positions * shape.inputs * shape.outputs for shape in shapes) == expected


def test_a_pattern_is_as_wide_as_its_cost_allows(space: Space) -> None:
    pattern = Pattern(frozenset({"backbone.layer3.2"}), {"backbone.layer1.0.conv1": 1.25})
    whole = macs(space, UNIFORM, 1.0)

    def cost(architecture):
        return sum(s.kernel * s.positions * s.inputs * s.outputs for s in space.shapes(architecture)) / whole

    found = space.at_cost(pattern, 0.4, cost)
    assert found is not None
    assert 0.3 < cost(found) <= 0.4
    assert found.dropped == ("backbone.layer3.2",)
    assert space.at_cost(pattern, 1e-6, cost) is None
    assert cost(space.at_cost(UNIFORM, 5.0, cost) or found) == 1.0


def test_no_group_is_wider_than_the_original_or_empty(space: Space) -> None:
    wide = Pattern(factors={next(iter(space.kinds)): 3.0})
    for scale in (0.0, 0.3, 1.0):
        counts = space.architecture(wide, scale).counts
        assert all(4 <= counts[name] <= group.channels for name, group in space.groups.items())
