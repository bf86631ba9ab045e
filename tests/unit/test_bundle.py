"""A bundle gives back the network that was saved, bit for bit, or says what is wrong with it."""

import json
import pickle
from pathlib import Path

import pytest
import torch
from torch import nn

from leanface import bundle
from leanface.errors import ArtifactError
from leanface.networks.resnet import FaceReconstructionNet, build_network, widths_of


@pytest.fixture
def saved(small_network: FaceReconstructionNet, tmp_path: Path) -> Path:
    folder = tmp_path / "network"
    bundle.save_bundle(small_network, bundle.new_spec(small_network, 64), folder)
    return folder


def assert_bitwise_equal(first: nn.Module, second: nn.Module) -> None:
    expected, loaded = first.state_dict(), second.state_dict()
    assert list(expected) == list(loaded)
    for name, tensor in expected.items():
        assert tensor.dtype == loaded[name].dtype
        assert torch.equal(tensor, loaded[name]), name


def test_the_full_network_comes_back_bitwise(tmp_path: Path) -> None:
    network = build_network()
    bundle.save_bundle(network, bundle.new_spec(network, 112), tmp_path / "full")
    loaded, spec = bundle.load_network(tmp_path / "full")
    assert_bitwise_equal(network, loaded)
    assert spec.input.size == 112
    assert not loaded.training


def test_a_network_with_other_widths_comes_back_bitwise(small_network: FaceReconstructionNet, saved: Path) -> None:
    loaded, spec = bundle.load_network(saved)
    assert widths_of(loaded) == widths_of(small_network) == spec.widths
    assert widths_of(loaded) != widths_of(build_network())
    assert_bitwise_equal(small_network, loaded)
    images = torch.rand(2, 3, 64, 64)
    with torch.no_grad():
        assert torch.equal(small_network(images), loaded(images))


def test_the_spec_comes_back(small_network: FaceReconstructionNet, tmp_path: Path) -> None:
    kept = {"backbone.conv1": [0, 2, 5]}
    spec = bundle.new_spec(small_network, 96, kept=kept, provenance={"seed": 3, "parent": "abc"})
    bundle.save_bundle(small_network, spec, tmp_path / "network")
    assert bundle.load_spec(tmp_path / "network") == spec


def test_saving_again_replaces_the_folder_and_its_digest(small_network: FaceReconstructionNet, saved: Path) -> None:
    before = bundle.digest(saved)
    (saved / "left_over.txt").write_text("from an earlier version")
    with torch.no_grad():
        small_network.final_layers[0].bias += 1.0  # pyright: ignore[reportOperatorIssue]
    bundle.save_bundle(small_network, bundle.new_spec(small_network, 64), saved)
    assert sorted(path.name for path in saved.iterdir()) == [bundle.SPEC, bundle.WEIGHTS]
    assert bundle.digest(saved) != before
    assert_bitwise_equal(small_network, bundle.load_network(saved)[0])


def test_truncated_weights_are_refused(saved: Path) -> None:
    weights = saved / bundle.WEIGHTS
    weights.write_bytes(weights.read_bytes()[:-100])
    with pytest.raises(ArtifactError, match=r"weights.safetensors is truncated .* `dvc repro`"):
        bundle.load_bundle(saved)


def test_weights_of_another_network_are_refused(saved: Path) -> None:
    spec = json.loads((saved / bundle.SPEC).read_text())
    spec["widths"] = {name: list(widths) for name, widths in widths_of(build_network()).items()}
    (saved / bundle.SPEC).write_text(json.dumps(spec))
    with pytest.raises(ArtifactError, match=r"does not match spec\.json"):
        bundle.load_bundle(saved)


def test_widths_of_an_unknown_layer_are_refused(saved: Path) -> None:
    spec = json.loads((saved / bundle.SPEC).read_text())
    spec["widths"]["backbone.layer9.0.conv1"] = [8, 8]
    (saved / bundle.SPEC).write_text(json.dumps(spec))
    with pytest.raises(ArtifactError, match="layer9"):
        bundle.load_bundle(saved)


class Malicious:
    """Pickles to a call of `Path.touch` on a file: proof if anything unpickles it."""

    def __init__(self, target: Path) -> None:
        self.target = target

    def __reduce__(self) -> tuple[object, tuple[Path]]:
        return Path.touch, (self.target,)


def test_a_pickle_is_refused_and_not_run(saved: Path, tmp_path: Path) -> None:
    proof = tmp_path / "executed"
    (saved / bundle.WEIGHTS).write_bytes(pickle.dumps(Malicious(proof)))
    with pytest.raises(ArtifactError, match="not safetensors"):
        bundle.load_bundle(saved)
    assert not proof.exists()


@pytest.mark.parametrize("missing", [bundle.SPEC, bundle.WEIGHTS])
def test_a_missing_file_is_named(saved: Path, missing: str) -> None:
    (saved / missing).unlink()
    with pytest.raises(ArtifactError, match=f"{missing} is missing"):
        bundle.load_bundle(saved)


@pytest.mark.parametrize("spec", ["", "{", "[]", '{"format_version": 99}'])
def test_a_damaged_spec_is_refused(saved: Path, spec: str) -> None:
    (saved / bundle.SPEC).write_text(spec)
    with pytest.raises(ArtifactError, match="not a bundle's spec"):
        bundle.load_bundle(saved)


def test_a_failed_save_leaves_the_earlier_bundle_and_nothing_else(
    small_network: FaceReconstructionNet, saved: Path
) -> None:
    before = bundle.digest(saved)
    spec = bundle.new_spec(small_network, 64, provenance={"unserialisable": object()})
    with pytest.raises(Exception, match="serialize"):
        bundle.save_bundle(small_network, spec, saved)
    assert [path.name for path in saved.parent.iterdir()] == [saved.name]
    assert bundle.digest(saved) == before


def test_a_quantised_bundle_is_not_loaded_as_a_floating_point_one(tmp_path: Path, exported) -> None:
    with pytest.raises(ArtifactError, match="quantised network"):
        bundle.load_network(exported.int8_bundle)
