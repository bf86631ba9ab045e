"""Networks as graphs: what is found without names, and what is refused."""

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from leanface.errors import NetworkError
from leanface.networks.graph import ResidualAdd, trace, with_residual_adds
from leanface.networks.widths import widths_of, with_widths
from tests.other_networks import NETWORKS, SIZE, Branching, trained_a_little


@pytest.mark.parametrize("name", NETWORKS)
def test_the_graph_computes_what_the_network_computes(name: str) -> None:
    network = trained_a_little(name)
    images = torch.rand(3, 3, SIZE, SIZE)
    before = images.clone()
    graph = trace(network)
    with torch.no_grad():
        assert torch.equal(graph.run_from(graph.nodes[1], {graph.nodes[0]: images}), network(images))
    assert torch.equal(images, before)
    assert set(graph.layers) == set(widths_of(network))


@pytest.mark.parametrize("name", NETWORKS)
def test_every_layer_has_the_batch_norm_behind_it(name: str) -> None:
    network = trained_a_little(name)
    norms = [each for each, module in network.named_modules() if isinstance(module, nn.BatchNorm2d)]
    after_concat = {"mix.0"} if name == "branching" else set[str]()
    assert set(trace(network).norms.values()) == set(norms) - after_concat


def test_the_layers_that_answer_are_found() -> None:
    assert trace(NETWORKS["vgg"]()).output_layers == ("classifier.3",)


@pytest.mark.parametrize("name", NETWORKS)
def test_additions_become_modules_that_compute_the_same(name: str) -> None:
    network = trained_a_little(name)
    images = torch.rand(2, 3, SIZE, SIZE)
    with torch.no_grad():
        expected = network(images)
        changed = with_residual_adds(network)
        assert torch.equal(changed(images), expected)
    assert set(changed.state_dict()) == set(network.state_dict())
    adds = [module for module in changed.modules() if isinstance(module, ResidualAdd)]
    assert len(adds) == {"separable": 1, "vgg": 0, "branching": 1}[name]
    assert (changed is network) == (not adds)


@pytest.mark.parametrize("name", NETWORKS)
def test_a_network_can_be_rebuilt_from_its_widths(name: str) -> None:
    network = NETWORKS[name]()
    rebuilt = with_widths(network, widths_of(network), SIZE)
    rebuilt.load_state_dict(network.state_dict())
    network.eval()
    images = torch.rand(2, 3, SIZE, SIZE)
    with torch.no_grad():
        assert torch.equal(rebuilt(images), network(images))


def test_widths_that_do_not_fit_each_other_are_refused() -> None:
    network = Branching()
    with pytest.raises(ValueError, match="do not fit each other"):
        with_widths(network, widths_of(network) | {"stem.0": (3, 10)}, SIZE)
    with pytest.raises(ValueError, match=r"differ at .*unknown"):
        with_widths(network, widths_of(network) | {"unknown": (3, 10)}, SIZE)


class Reshaping(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.block = nn.Sequential(nn.Conv2d(3, 4, 3), nn.GroupNorm(2, 4))
        self.shared = nn.Conv2d(4, 4, 1)
        self.fc = nn.Linear(4, 2)

    def forward(self, x: Tensor) -> Tensor:
        x = self.shared(self.shared(F.softmax(self.block(x), dim=1)))
        return self.fc(F.adaptive_avg_pool2d(x * 2 + 1, 1).reshape(-1, 4))


def test_what_is_not_known_is_named_with_what_to_do() -> None:
    with pytest.raises(NetworkError) as refused:
        trace(Reshaping())
    message = str(refused.value)
    for part in (
        "Reshaping has operations that LeanFace does not compress",
        "block.1: GroupNorm; put another module in its place",
        "forward: softmax",
        "adds something else than two feature maps",
        "reshape; use torch.flatten(x, 1)",
        "shared is called more than once",
    ):
        assert part in message


class Deciding(nn.Module):
    def forward(self, x: Tensor) -> Tensor:
        return x if x.mean() > 0 else -x


def test_a_forward_that_decides_by_values_is_refused() -> None:
    with pytest.raises(NetworkError, match="Deciding cannot be traced"):
        trace(Deciding())
