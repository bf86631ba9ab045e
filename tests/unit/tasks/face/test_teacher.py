"""Where the original network may come from."""

from pathlib import Path

import pytest
import torch
import yaml

from leanface import bundle, paths
from leanface.config import Teacher
from leanface.errors import ArtifactError
from leanface.face.morphable_model import MorphableModel
from leanface.networks.resnet import FaceReconstructionNet
from leanface.networks.widths import widths_of
from leanface.tasks.face.task import FaceTask
from leanface.tasks.face.teacher import Request, original_network
from tests.settings import DATA, MACHINE


@pytest.fixture
def request_for(root: Path, model: MorphableModel):
    """(path) -> a request for the network in that file."""
    defaults = yaml.safe_load((root / "conf/teacher/pretrained.yaml").read_text())

    def ask(path: Path) -> Request:
        teacher = Teacher.model_validate(defaults | {"source": "checkpoint", "path": str(path)})
        return Request(teacher, DATA, MACHINE, 0, FaceTask(model), None)

    return ask


def test_a_checkpoint_is_a_bundle_a_packed_network_or_weights(
    request_for, small_network: FaceReconstructionNet, tmp_path: Path
) -> None:
    bundle.save_bundle(small_network, bundle.new_spec(small_network, 64), tmp_path / "bundle")
    loaded = original_network(request_for(tmp_path / "bundle"))
    assert widths_of(loaded) == widths_of(small_network)
    assert all(torch.equal(x, y) for x, y in zip(loaded.parameters(), small_network.parameters(), strict=True))

    packed = original_network(request_for(paths.PRETRAINED_TEACHER))
    torch.save({"net_recon": packed.state_dict()}, tmp_path / "epoch_20.pth")
    weights = original_network(request_for(tmp_path / "epoch_20.pth"))
    assert torch.equal(weights.get_parameter("backbone.conv1.weight"), packed.get_parameter("backbone.conv1.weight"))
    assert not weights.training


def test_other_files_are_refused(request_for, tmp_path: Path) -> None:
    with pytest.raises(ArtifactError, match=r"none\.pt is missing; name a PyTorch or safetensors checkpoint"):
        original_network(request_for(tmp_path / "none.pt"))
    (tmp_path / "empty").mkdir()
    for name in ("text.pt", "text.npz"):
        (tmp_path / name).write_text("no weights")
    for name, says in {"empty": "not a bundle", "text.pt": "checkpoint", "text.npz": "packed network"}.items():
        with pytest.raises(ArtifactError, match=says):
            original_network(request_for(tmp_path / name))
