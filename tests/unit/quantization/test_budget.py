"""Mixed precision: what each part adds alone, what is kept, and which network is chosen."""

import copy
import random
from collections.abc import Callable
from itertools import pairwise

import pytest
import torch
from torch import Tensor

from leanface.config import Budget
from leanface.errors import ConfigError
from leanface.face.morphable_model import MorphableModel
from leanface.metrics.outputs import mean_errors
from leanface.networks.quantized import Quantizer, in_flavor, quantizers_of
from leanface.networks.resnet import FaceReconstructionNet
from leanface.quantization.budget import (
    MOST,
    NOISE,
    Point,
    choose,
    errors_alone,
    front_of,
    gains_of,
    keep_floating,
    ranked,
    require_measured,
    search,
)
from leanface.quantization.fake_quantize import fake_quantize
from leanface.quantization.rounding import round_weights
from leanface.tasks.face.task import FaceTask
from tests.conftest import smooth_images

PARTS = [f"part{index}" for index in range(20)]
ALONE = ["backbone.conv1", "backbone.layer1.0.downsample.0", "final_layers.3"]


def made_up(seed: int) -> tuple[dict[str, float], Callable[[tuple[str, ...]], Point]]:
    """Parts whose squared errors and costs add up."""
    draw = random.Random(seed)
    shares, costs = ({part: draw.random() for part in PARTS} for _ in range(2))

    def measure(kept: tuple[str, ...]) -> Point:
        left = sum(shares[part] for part in PARTS if part not in kept)
        return Point(kept, {"mm": left**0.5, "degrees": left**0.5 / 2}, 1 + sum(costs[part] for part in kept))

    return shares, measure


@pytest.mark.parametrize("seed", range(5))
def test_the_search_measures_none_each_of_the_best_and_more_and_more_of_them(seed: int) -> None:
    shares, measure = made_up(seed)
    points = list(search(shares, measure))
    best = sorted(PARTS, key=lambda part: -shares[part])[:MOST]
    assert [point.kept for point in points[: MOST + 1]] == [(), *((part,) for part in best)]
    chain = [set(point.kept) for point in points[MOST + 1 :]]
    assert [len(kept) for kept in chain] == list(range(2, MOST + 1))
    assert all(fewer < more for fewer, more in pairwise(chain))
    # Along the chain, each further part gains less for what it costs.
    errors = [point.errors["mm"] ** 2 for point in points[MOST + 1 :]]
    costs = [point.latency_ms for point in points[MOST + 1 :]]
    rates = [(errors[i] - errors[i + 1]) / (costs[i + 1] - costs[i]) for i in range(MOST - 2)]
    assert rates == sorted(rates, reverse=True)


@pytest.mark.parametrize("seed", range(5))
def test_the_fastest_within_the_budget_is_chosen_and_none_that_is_not_on_the_front(seed: int) -> None:
    shares, measure = made_up(seed)
    points = list(search(shares, measure))
    middle = sorted(point.errors["mm"] for point in points)[len(points) // 2]
    chosen = choose(points, Budget(error={"mm": middle}))
    within = [point for point in points if point.errors["mm"] <= middle]
    assert chosen.latency_ms == min(point.latency_ms for point in within)
    assert chosen in front_of(points, "mm")
    latency = chosen.latency_ms
    closest = choose(points, Budget(latency=latency))
    assert closest.errors["mm"] == min(point.errors["mm"] for point in points if point.latency_ms <= latency)


def test_a_budget_that_none_meets_says_what_can_be_reached() -> None:
    points = [Point((), {"mm": 2.0}, 1.0), Point(("a",), {"mm": 1.0}, 3.0)]
    with pytest.raises(ConfigError, match=r"2 networks.*fastest takes 1 ms with mm 2;.*closest of all takes 3 ms with"):
        choose(points, Budget(error={"mm": 0.5}))
    with pytest.raises(ConfigError, match=r"within the latency takes 1 ms.*fastest within the errors takes 3 ms"):
        choose(points, Budget(error={"mm": 1.5}, latency=2.0))
    with pytest.raises(ConfigError, match="the fastest takes 1 ms with mm 2"):
        choose(points, Budget(latency=0.5))
    with pytest.raises(ConfigError, match="no measure inches; there are mm"):
        require_measured(Budget(error={"inches": 1.0}), ["mm"])


def test_gains_are_shares_of_the_squared_error_of_what_is_limited() -> None:
    alone, whole = {"a": {"mm": 1.0, "wrong": 0.0}, "b": {"mm": 3.0, "wrong": 0.0}}, {"mm": 4.0, "wrong": 0.0}
    for budget in (Budget(error={"mm": 1.0}), Budget(latency=1.0)):
        assert gains_of(alone, whole, budget) == {"a": 1 / 16, "b": 9 / 16}
    # What costs less than can be measured goes by its gain.
    assert ranked({"a": 1.0, "b": 2.0, "c": 3.0}, {"a": -1.0, "b": NOISE, "c": 10.0}, 1.0) == ["b", "a", "c"]


@pytest.fixture(scope="module")
def images() -> Tensor:
    return smooth_images(4, seed=3)


def test_alone_a_part_adds_what_a_network_with_all_others_in_floating_point_shows(
    shared_network: FaceReconstructionNet, images: Tensor, model: MorphableModel
) -> None:
    task, quantizer = FaceTask(model), Quantizer(residual=True)
    network = fake_quantize(copy.deepcopy(shared_network), images, quantizer)
    before = copy.deepcopy(network.state_dict())
    round_weights(network, images)
    found = errors_alone(network, before, "cpu", images, task)
    parts = list(dict.fromkeys(name.rpartition(".")[0] for name, _ in quantizers_of(network)))
    assert list(found) == parts
    with torch.no_grad():
        expected = shared_network(images)
        for part in ALONE:
            others = quantizer.model_copy(update={"excluded_layers": tuple(name for name in parts if name != part)})
            one = keep_floating(copy.deepcopy(shared_network), network.state_dict(), before, others)
            errors = mean_errors(task, in_flavor(one, "cpu")(images), expected)
            assert errors["vertex_mm"] + errors["posed_mm"] > 0
            assert found[part] == pytest.approx(errors, rel=0.02, abs=1e-4)
    assert found["backbone.layer2.0.add"]["vertex_mm"] > 0


def test_what_is_kept_is_as_before_and_the_rest_as_rounded(
    shared_network: FaceReconstructionNet, images: Tensor
) -> None:
    quantizer = Quantizer(residual=True, excluded_layers=("backbone.conv1", "backbone.layer1.0.add"))
    network = fake_quantize(copy.deepcopy(shared_network), images, Quantizer(residual=True))
    before = copy.deepcopy(network.state_dict())
    round_weights(network, images)
    mixed = keep_floating(copy.deepcopy(shared_network), network.state_dict(), before, quantizer).state_dict()
    original = shared_network.state_dict()
    assert torch.equal(mixed["backbone.conv1.weight"], original["backbone.conv1.weight"])
    assert torch.equal(mixed["backbone.bn1.running_mean"], original["backbone.bn1.running_mean"])
    name = "backbone.layer1.0.conv2.weight"
    assert torch.equal(mixed[name], network.state_dict()[name])
    assert not torch.equal(mixed[name], original[name])
    assert not any(key.startswith(("backbone.conv1.", "backbone.layer1.0.add.")) and "_amax" in key for key in mixed)
