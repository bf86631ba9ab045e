"""A packed network for several image sizes."""

import sys
from pathlib import Path

import pytest
import torch

from leanface import bundle, paths
from leanface.config import load_face_config
from leanface.networks.packed import load_packed, statistics_of
from leanface.networks.resnet import FaceReconstructionNet
from leanface.stages import configure
from leanface.synthesis.datamodule import Stream
from leanface.training.batch_norm import measure_batch_norm
from tools.release import pack_teacher as pack


def test_each_size_has_the_statistics_of_the_packed_weights(project: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    configure.run()
    torch.manual_seed(0)
    network = FaceReconstructionNet().eval()
    bundle.save_bundle(network, bundle.new_spec(network, 64), Path("bundle"))
    monkeypatch.setattr(sys, "argv", ["pack", "bundle", "out.npz", "--sizes", "32", "64", "--batch-size", "2"])
    before = set(project.iterdir())
    pack.main()
    assert set(project.iterdir()) - before == {project / "out.npz"}

    config = load_face_config(paths.CONFIG)
    stream = Stream(config.data, (32,), torch.device("cpu"))
    packed = load_packed(Path("out.npz"), 32)
    found, larger = statistics_of(packed), statistics_of(load_packed(Path("out.npz"), 64))
    assert all(not torch.allclose(value, larger[name], rtol=1e-3) for name, value in found.items())
    measure_batch_norm(packed, (images / 255.0 for images in stream.statistics_images(32, config.seed, 2)))
    for name, value in statistics_of(packed).items():
        torch.testing.assert_close(value, found[name], rtol=1e-3, atol=1e-5)
