"""The original, packed for shipping."""

import sys
from pathlib import Path

import pytest
import torch

from leanface import bundle
from leanface.errors import ArtifactError
from leanface.networks.packed import load_packed
from leanface.networks.resnet import FaceReconstructionNet
from tools.release import pack_teacher as pack


def test_the_packed_network_is_the_bundles(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    torch.manual_seed(0)
    network = FaceReconstructionNet().eval()
    bundle.save_bundle(network, bundle.new_spec(network, 64), tmp_path / "bundle")
    monkeypatch.setattr(sys, "argv", ["pack", str(tmp_path / "bundle"), str(tmp_path / "out.npz")])
    pack.main()
    images = torch.rand(2, 3, 64, 64)
    with torch.no_grad():
        expected, found = network(images), load_packed(tmp_path / "out.npz")(images)
    assert (found - expected).norm() < 0.03 * expected.norm()


def test_a_narrower_network_is_refused(small_network: FaceReconstructionNet, tmp_path: Path) -> None:
    bundle.save_bundle(small_network, bundle.new_spec(small_network, 64), tmp_path / "bundle")
    with pytest.raises(ArtifactError, match="full width"):
        pack.pack_teacher(tmp_path / "bundle", tmp_path / "out.npz")
    assert not (tmp_path / "out.npz").exists()
