"""A bundle gives back the network that was saved, bit for bit, or says what is wrong with it."""

import importlib.metadata
import json
import pickle
from collections.abc import Callable
from pathlib import Path

import pytest
import safetensors.torch
import torch
from torch import nn

from leanface import bundle
from leanface.errors import ArtifactError
from leanface.networks.resnet import FaceReconstructionNet, build_network
from leanface.networks.widths import widths_of


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


def test_others_may_read_what_was_saved(saved: Path) -> None:
    assert {oct(path.stat().st_mode & 0o044) for path in [saved, *saved.iterdir()]} == {oct(0o044)}


def test_a_network_with_other_widths_comes_back_bitwise(small_network: FaceReconstructionNet, saved: Path) -> None:
    loaded, spec = bundle.load_network(saved)
    assert widths_of(loaded) == widths_of(small_network) == spec.widths
    assert widths_of(loaded) != widths_of(build_network())
    assert_bitwise_equal(small_network, loaded)
    images = torch.rand(2, 3, 64, 64)
    with torch.no_grad():
        assert torch.equal(small_network(images), loaded(images))


def test_at_half_the_size_weights_are_rounded_to_float16_and_nothing_else(
    small_network: FaceReconstructionNet, saved: Path
) -> None:
    half = saved.with_name("half")
    bundle.save_bundle(small_network, bundle.load_spec(saved), half, half=True)
    assert (half / bundle.WEIGHTS).stat().st_size < 0.55 * (saved / bundle.WEIGHTS).stat().st_size
    loaded = bundle.load_network(half)[0].state_dict()
    for name, tensor in small_network.state_dict().items():
        expected = tensor.half().float() if tensor.ndim == 4 else tensor
        assert loaded[name].dtype == tensor.dtype
        assert torch.equal(loaded[name], expected), name


def test_the_spec_comes_back(small_network: FaceReconstructionNet, tmp_path: Path) -> None:
    kept = {"backbone.conv1": list(range(0, 48, 3))}
    spec = bundle.new_spec(small_network, 96, kept_channels=kept, provenance={"seed": 3, "parent": "abc"})
    bundle.save_bundle(small_network, spec, tmp_path / "network")
    loaded = bundle.load_spec(tmp_path / "network")
    assert loaded.model_copy(update={"versions": {}}) == spec
    assert loaded.versions["torch"] == importlib.metadata.version("torch")
    assert loaded.outputs["identity"] == (0, 80)


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


@pytest.mark.parametrize(
    ("key", "name", "value", "says"),
    [
        ("widths", "backbone.layer9.0.conv1", [8, 8], "layer9"),
        # 4 TiB, if it were believed.
        ("widths", "backbone.layer1.0.conv2", [2**19, 2**19], r"layer1.0.conv2 has 524288 x 524288 channels"),
        ("kept_channels", "backbone.conv1", [0, 1, 2], "must list 16 different channels"),
        ("kept_channels", "backbone.conv1", [0] * 16, "must list 16 different channels"),
        ("kept_channels", "backbone.layer9.0.conv1", [0], "layer9"),
        ("outputs", "identity", [0, 79], "lie otherwise"),
    ],
)
def test_a_spec_that_does_not_describe_the_weights_is_refused(
    saved: Path, key: str, name: str, value: list[int], says: str
) -> None:
    spec = json.loads((saved / bundle.SPEC).read_text())
    spec[key] = {**(spec[key] or {}), name: value}
    (saved / bundle.SPEC).write_text(json.dumps(spec))
    with pytest.raises(ArtifactError, match=rf"{says}.*`dvc repro`"):
        bundle.load_bundle(saved)


@pytest.mark.parametrize(
    ("change", "says"),
    [
        (lambda tensors: tensors.pop("backbone.bn1.bias"), "backbone.bn1.bias"),
        (lambda tensors: tensors.update(extra=torch.zeros(1)), "extra"),
        (
            lambda tensors: tensors.update({"backbone.bn1.bias": torch.zeros(16).double()}),
            "float64, expected .*float32",
        ),
        (
            lambda tensors: tensors.update({"backbone.bn1.bias": torch.zeros(17)}),
            r"floats \[17\], expected floats \[16\]",
        ),
    ],
)
def test_weights_that_the_spec_does_not_describe_are_refused(
    saved: Path, change: Callable[[dict[str, torch.Tensor]], object], says: str
) -> None:
    tensors = safetensors.torch.load_file(saved / bundle.WEIGHTS)
    change(tensors)
    safetensors.torch.save_file(tensors, saved / bundle.WEIGHTS)
    with pytest.raises(ArtifactError, match=rf"(?s)does not match spec\.json.*{says}.*`dvc repro`"):
        bundle.load_bundle(saved)


class Malicious:
    """Pickles to a call of `Path.touch` on a file: proof if anything unpickles it."""

    def __init__(self, target: Path) -> None:
        self.target = target

    def __reduce__(self) -> tuple[object, tuple[Path]]:
        return Path.touch, (self.target,)


@pytest.mark.parametrize("file", [bundle.SPEC, bundle.WEIGHTS])
@pytest.mark.parametrize("save", [lambda what, path: path.write_bytes(pickle.dumps(what)), torch.save])
def test_a_pickle_is_refused_and_not_run(
    saved: Path, tmp_path: Path, file: str, save: Callable[[object, Path], object]
) -> None:
    proof = tmp_path / "executed"
    save(Malicious(proof), saved / file)
    with pytest.raises(ArtifactError, match=r"not safetensors|not a bundle's spec"):
        bundle.load_bundle(saved)
    assert not proof.exists()


def test_the_proof_would_show_an_unpickling(tmp_path: Path) -> None:
    pickle.loads(pickle.dumps(Malicious(tmp_path / "executed")))
    assert (tmp_path / "executed").exists()


@pytest.mark.parametrize("missing", [bundle.SPEC, bundle.WEIGHTS])
def test_a_missing_file_is_named(saved: Path, missing: str) -> None:
    (saved / missing).unlink()
    with pytest.raises(ArtifactError, match=f"{missing} is missing"):
        bundle.load_bundle(saved)
    (saved / missing).mkdir()
    with pytest.raises(ArtifactError, match=missing):
        bundle.load_bundle(saved)


@pytest.mark.parametrize("length", [0, 4, 1000])
def test_weights_cut_off_anywhere_are_refused(saved: Path, length: int) -> None:
    weights = saved / bundle.WEIGHTS
    weights.write_bytes(weights.read_bytes()[:length])
    with pytest.raises(ArtifactError, match="truncated"):
        bundle.load_bundle(saved)


def test_a_spec_of_format_1_is_read_by_the_names_of_today(saved: Path) -> None:
    now = bundle.load_spec(saved)
    spec = json.loads((saved / bundle.SPEC).read_text())
    old = {name: value for name, value in spec.items() if name != "kept_channels"}
    old |= {"format_version": 1, "kept": {"backbone.conv1": list(range(16))}, "sparsity": None}
    old["input"] = {"size": 64, "colour": "RGB", "range": [0.0, 1.0], "layout": "NCHW"}
    old["provenance"] = {"licence": "imaginary"}
    old["quantizer"] = {"scheme": "int8", "residual": True, "kept": ["backbone.conv1"]}
    (saved / bundle.SPEC).write_text(json.dumps(old))
    read = bundle.load_spec(saved)
    assert (read.input, read.widths, read.format_version) == (now.input, now.widths, 2)
    assert read.kept_channels == {"backbone.conv1": list(range(16))}
    assert read.license == "imaginary"
    assert read.quantizer == {"scheme": "int8", "residual": True, "excluded_layers": ["backbone.conv1"]}


@pytest.mark.parametrize("spec", ["", "{", "[]", '{"format_version": 99}'])
def test_a_damaged_spec_is_refused(saved: Path, spec: str) -> None:
    (saved / bundle.SPEC).write_text(spec)
    with pytest.raises(ArtifactError, match="not a bundle's spec"):
        bundle.load_bundle(saved)


def test_a_failed_save_leaves_the_earlier_bundle_and_nothing_else(
    small_network: FaceReconstructionNet, saved: Path
) -> None:
    before = bundle.digest(saved)
    spec = bundle.new_spec(small_network, 64, provenance={"unserializable": object()})
    with pytest.raises(Exception, match="serialize"):
        bundle.save_bundle(small_network, spec, saved)
    assert [path.name for path in saved.parent.iterdir()] == [saved.name]
    assert bundle.digest(saved) == before


def test_a_quantized_bundle_is_not_loaded_as_a_floating_point_one(tmp_path: Path, exported) -> None:
    with pytest.raises(ArtifactError, match="quantized network"):
        bundle.load_network(exported.int8_bundle)
