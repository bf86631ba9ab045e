"""Pruning, re-fit, folding, INT8 and export of networks that are not ResNets."""

import math
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import Tensor

from leanface import bundle
from leanface.catalog import CLASSIFICATION
from leanface.errors import BackendError
from leanface.export.onnx import export_network, save_model
from leanface.export.parity import AS_WRITTEN, as_written, check_parity, parity_inputs
from leanface.networks.graph import trace
from leanface.networks.inference import inference_form
from leanface.networks.quantized import Quantizer, add_quantizers, in_flavor, quantizers_of
from leanface.networks.widths import widths_of, with_widths
from leanface.pruning.compensate import compensate
from leanface.pruning.cost import macs_and_parameters
from leanface.pruning.groups import ChannelGraph
from leanface.pruning.importance import Magnitude
from leanface.pruning.plan import counts_left, macs_share
from leanface.pruning.prune import PruneResult, prune_channels
from leanface.quantization.fake_quantize import fake_quantize
from leanface.runtime import open_runtime
from tests.conftest import smooth_images
from tests.other_networks import CLASSES, NETWORKS, SIZE, trained_a_little


def images(count: int, seed: int) -> Tensor:
    return torch.nn.functional.interpolate(smooth_images(count, seed), size=SIZE)


def halved(name: str) -> PruneResult:
    network = trained_a_little(name)
    ratios = dict.fromkeys(ChannelGraph(network, SIZE).groups(), 0.5)
    return prune_channels(network, ratios, Magnitude(), round_to=4, image_size=SIZE)


@pytest.mark.parametrize("name", NETWORKS)
def test_pruned_networks_run_and_are_rebuilt_from_their_widths(name: str) -> None:
    original, (pruned, kept) = trained_a_little(name), halved(name)
    assert widths_of(pruned) != widths_of(original)
    assert {layer: len(channels) for layer, channels in kept.items()} == {
        layer: outputs for layer, (_, outputs) in widths_of(pruned).items()
    }
    rebuilt = with_widths(original, widths_of(pruned), SIZE)
    rebuilt.load_state_dict(pruned.state_dict())
    with torch.no_grad():
        assert torch.equal(rebuilt(images(2, 1)), pruned(images(2, 1)))


def test_grouped_convolutions_and_the_answers_stay_whole() -> None:
    network, pruned = trained_a_little("branching"), halved("branching").network
    for layer in ("grouped", "last", "mix.2"):
        assert widths_of(pruned)[layer][1] == widths_of(network)[layer][1]
    assert widths_of(pruned)["left.0"] == (8, 4)
    assert widths_of(pruned)["mix.2"] == (12, 16)


@pytest.mark.parametrize("name", NETWORKS)
def test_computed_share_of_macs_is_that_of_the_network(name: str) -> None:
    network = trained_a_little(name)
    groups = ChannelGraph(network, SIZE).groups()
    counts = counts_left({each: group.channels for each, group in groups.items()}, dict.fromkeys(groups, 0.5), 4)
    whole, left = (macs_and_parameters(each, SIZE)[0] for each in (network, halved(name).network))
    assert macs_share(network, groups, SIZE)(counts) == pytest.approx(left / whole, rel=1e-9)


@pytest.mark.parametrize("name", NETWORKS)
def test_the_re_fit_brings_answers_closer_on_other_images(name: str) -> None:
    teacher, (pruned, kept) = trained_a_little(name), halved(name)
    result, fits = compensate(pruned, teacher, kept, images(64, 5), 1e-3)
    assert [fit.name for fit in fits] == list(trace(teacher).layers)
    assert [fit.name for fit in fits if fit.error_after > fit.error_before * (1 + 1e-5)] == []
    others = images(32, 9)
    with torch.no_grad():
        before, after = (float((each(others) - teacher(others)).square().mean()) for each in (pruned, result))
    assert after < 0.5 * before


def test_a_layer_that_cannot_be_re_fitted_is_left_and_listed() -> None:
    teacher = trained_a_little("vgg")
    first = teacher.get_submodule("features.0")
    first.register_parameter("bias", None)
    kept = {name: list(range(outputs)) for name, (_, outputs) in widths_of(teacher).items()}
    fits = compensate(teacher, teacher, kept, images(8, 5), 1e-3)[1]
    left = {fit.name: fit.left for fit in fits if math.isnan(fit.error_after)}
    assert left == {"features.0": "it has neither a bias nor a batch norm right behind it"}


@pytest.mark.parametrize("name", NETWORKS)
def test_folding_changes_nothing(name: str) -> None:
    network = trained_a_little(name)
    with torch.no_grad():
        expected, found = network(images(4, 3)), inference_form(network)(images(4, 3))
    torch.testing.assert_close(found, expected, rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("name", NETWORKS)
def test_every_layer_is_quantized_and_the_answers_stay_close(name: str) -> None:
    network, others = trained_a_little(name), images(32, 9)
    layers = set(widths_of(network))
    with torch.no_grad():
        expected = network(others)
        quantized = fake_quantize(network, images(32, 5), Quantizer(residual=True))
        error = float((quantized(others) - expected).square().mean() / expected.var(dim=0).mean())
    assert error < 0.05
    names = {each for each, _ in quantizers_of(quantized)}
    assert {f"{layer}.{kind}_quantizer" for layer in layers for kind in ("input", "weight")} <= names
    added = names - {f"{layer}.{kind}_quantizer" for layer in layers for kind in ("input", "weight")}
    assert len(added) == {"separable": 1, "vgg": 0, "branching": 1}[name]
    # A bundle restores its ranges by name.
    rebuilt = add_quantizers(trained_a_little(name), Quantizer(residual=True).model_dump())
    rebuilt.load_state_dict(quantized.state_dict())
    with torch.no_grad():
        assert torch.equal(rebuilt.eval()(others), quantized(others))


@pytest.mark.parametrize("precision", ["fp32", "fp16", "int8"])
@pytest.mark.parametrize("name", NETWORKS)
def test_exported_files_compute_what_the_network_computes(name: str, precision: str, tmp_path: Path) -> None:
    network, quantizer = halved(name).network, None
    if precision == "int8":
        description = Quantizer(residual=True)
        network, quantizer = fake_quantize(network, images(32, 5), description), description.model_dump()
    contract = bundle.InputContract(size=SIZE, any_size=False)
    outputs = {"scores": (0, CLASSES)}
    spec = bundle.Spec(task="own.py:Own", widths={}, outputs=outputs, quantizer=quantizer, input=contract)
    model = export_network(network, spec, precision, opset=19, dynamic_size=False)
    file = tmp_path / "own.onnx"
    save_model(model, file, {})
    meant = in_flavor(network, "tensorrt") if precision == "int8" else network
    runtimes = {each: open_runtime(each, file) for each in ("onnxruntime", "openvino")}
    inputs = parity_inputs(images(8, 9), CLASSIFICATION, dynamic_size=False)
    runs = {AS_WRITTEN: as_written(model)} | {each: runtime.run for each, runtime in runtimes.items()}
    rows = check_parity(meant, runs, inputs, {"fp32": 1e-4, "fp16": 2e-2, "int8": 0.2}[precision])
    assert {row.runtime for row in rows} == set(runs)
    for runtime in runtimes.values():
        assert runtime.outputs == CLASSES
        with pytest.raises(BackendError, match="a height of 32"):
            runtime.run(np.zeros((1, 3, 64, 64), np.float32))
        runtime.close()
