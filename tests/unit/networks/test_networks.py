"""The network, its packed form and ModelScope's checkpoint."""

import copy
from pathlib import Path

import numpy as np
import pytest
import torch

from leanface import paths
from leanface.errors import ArtifactError
from leanface.face.coefficients import COUNT, LIGHTING
from leanface.face.lighting import sh_basis, shade
from leanface.modelscope_hub import CHECKPOINT
from leanface.networks.modelscope import load_checkpoint, load_modelscope
from leanface.networks.packed import load_packed, load_pretrained, save_packed
from leanface.networks.resnet import FaceReconstructionNet, batch_norm_of, build_network
from leanface.networks.widths import widths_of


def test_it_has_modelscopes_keys_and_size(network: FaceReconstructionNet) -> None:
    state = network.state_dict()
    assert len(state) == 332
    assert {"backbone.layer4.2.bn3.running_var", "backbone.layer1.0.downsample.0.weight"} <= set(state)
    heads = [state[f"final_layers.{index}.weight"].shape for index in range(7)]
    assert [shape[0] for shape in heads] == [80, 64, 80, 3, 27, 2, 1]
    assert sum(value.numel() for name, value in state.items() if name.endswith(("weight", "bias"))) == 24_034_625


@pytest.mark.parametrize("size", [64, 112])
def test_any_size_gives_257_coefficients(small_network: FaceReconstructionNet, size: int) -> None:
    assert small_network(torch.rand(2, 3, size, size)).shape == (2, 257)


def test_widths_rebuild_a_network(small_network: FaceReconstructionNet, images: torch.Tensor) -> None:
    twin = build_network(widths_of(small_network))
    twin.load_state_dict(small_network.state_dict())
    assert torch.equal(twin.eval()(images), small_network(images))
    with pytest.raises(ValueError, match="widths"):
        build_network({"backbone.conv1": (3, 64)})


def test_every_convolution_but_the_heads_has_a_batch_norm(small_network: FaceReconstructionNet) -> None:
    for name, (_, outputs) in widths_of(small_network).items():
        norm = batch_norm_of(name)
        assert (norm is None) == name.startswith("final_layers")
        if norm is not None:
            assert small_network.get_submodule(norm).get_buffer("running_mean").shape == (outputs,)


@pytest.fixture(scope="module")
def network() -> FaceReconstructionNet:
    """The whole width, in eval mode: packed networks and ModelScope's have no other. Do not change it."""
    torch.manual_seed(0)
    return FaceReconstructionNet().eval()


@pytest.fixture(scope="module")
def packed(network: FaceReconstructionNet, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The network as a file."""
    path = tmp_path_factory.mktemp("packed") / "network.npz"
    save_packed(network, path)
    return path


def test_packing_keeps_the_function_and_is_idempotent(
    network: FaceReconstructionNet, packed: Path, tmp_path: Path
) -> None:
    images, unpacked = torch.rand(2, 3, 64, 64), load_packed(packed)
    with torch.no_grad():
        expected, found = network(images), unpacked(images)
    assert (found - expected).norm() < 0.03 * expected.norm()
    assert packed.stat().st_size < 25 * 2**20
    save_packed(unpacked, tmp_path / "b.npz")
    again = load_packed(tmp_path / "b.npz")
    assert all(torch.allclose(x, y, atol=1e-7) for x, y in zip(unpacked.parameters(), again.parameters(), strict=True))
    assert all(torch.equal(x, y) for x, y in zip(network.buffers(), again.buffers(), strict=True))


def test_damaged_packed_networks_are_refused(tmp_path: Path) -> None:
    with pytest.raises(ArtifactError, match="missing"):
        load_packed(tmp_path / "none.npz")
    (tmp_path / "cut.npz").write_bytes(b"PK\x03\x04 cut")
    with pytest.raises(ArtifactError, match="not a packed network"):
        load_packed(tmp_path / "cut.npz")


@pytest.mark.parametrize(("image_size", "path"), [(112, paths.PRETRAINED_TEACHER), (224, paths.PRETRAINED_TEACHER_224)])
def test_the_shipped_original_is_the_one_for_the_images(image_size: int, path: Path) -> None:
    with np.load(path) as packed:
        expected = packed["final_layers.0.bias"]
    assert np.array_equal(load_pretrained(image_size).state_dict()["final_layers.0.bias"].numpy(), expected)


def test_modelscopes_checkpoint_loads_strictly_and_runs_no_code(network: FaceReconstructionNet, tmp_path: Path) -> None:
    torch.save({"net_recon": network.state_dict(), "alpha": torch.ones(1)}, tmp_path / CHECKPOINT)
    loaded = load_modelscope(tmp_path).state_dict()
    for name, value in network.state_dict().items():
        assert torch.equal(value, loaded[name]) or name.startswith("final_layers.4."), name

    extra = network.state_dict() | {"fc.weight": torch.zeros(1)}
    for wrong in ({"conv.weight": torch.zeros(1)}, extra, {"backbone.conv1.weight": 3}, "weights"):
        torch.save({"net_recon": wrong}, tmp_path / CHECKPOINT)
        with pytest.raises(ArtifactError, match="face reconstruction"):
            load_modelscope(tmp_path)
    marker = tmp_path / "ran"
    (tmp_path / CHECKPOINT).write_bytes(b"cos\nsystem\n(S'touch " + str(marker).encode() + b"'\ntR.")
    with pytest.raises(ArtifactError):
        load_modelscope(tmp_path)
    assert not marker.exists()
    with pytest.raises(ArtifactError, match=r"teacher\.path"):
        load_modelscope(tmp_path / "nowhere")


@torch.no_grad()
def test_modelscopes_lighting_shades_as_deep3dfacerecon_does(network: FaceReconstructionNet, tmp_path: Path) -> None:
    """There: gamma as (channel, band), plus 0.8 in the first band; color = (bands @ gamma) * albedo."""
    network = copy.deepcopy(network)
    network.final_layers.get_submodule("4").get_parameter("bias").normal_(std=0.1)
    torch.save({"net_recon": network.state_dict()}, tmp_path / "epoch.pth")
    images = torch.rand(2, 3, 64, 64)
    theirs, ours = network(images), load_checkpoint(tmp_path / "epoch.pth")(images)
    others = [index for index in range(COUNT) if not LIGHTING.start <= index < LIGHTING.stop]
    assert torch.equal(theirs[:, others], ours[:, others])

    normals = torch.nn.functional.normalize(torch.randn(2, 50, 3), dim=-1)
    albedo = torch.rand(2, 50, 3)
    gamma = theirs[:, LIGHTING].view(2, 3, 9) + 0.8 * torch.eye(9)[0]
    expected = (sh_basis(normals) @ gamma.transpose(1, 2) * albedo).clamp(0, 1)
    torch.testing.assert_close(shade(albedo, normals, ours[:, LIGHTING]), expected, atol=1e-5, rtol=0)
