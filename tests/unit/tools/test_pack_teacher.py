"""What cannot be packed."""

from pathlib import Path

import pytest
import torch

from leanface import bundle
from leanface.errors import ArtifactError
from leanface.networks.resnet import FaceReconstructionNet
from leanface.synthesis.datamodule import Stream
from tests.settings import DATA
from tools.release import pack_teacher as pack


def test_a_narrow_network_is_refused(small_network: FaceReconstructionNet, tmp_path: Path) -> None:
    bundle.save_bundle(small_network, bundle.new_spec(small_network, 64), tmp_path / "bundle")
    stream = Stream(DATA, (64,), torch.device("cpu"))
    with pytest.raises(ArtifactError, match="full width"):
        pack.pack_at_sizes(tmp_path / "bundle", tmp_path / "out.npz", [64], stream, seed=0, batch_size=2)
    assert not (tmp_path / "out.npz").exists()
