"""What every test has: the project's root, an empty project, and small networks."""

import copy
import functools
from collections.abc import Callable
from pathlib import Path
from typing import NamedTuple

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from leanface import bundle
from leanface.export.onnx import export_network, save_model
from leanface.face.morphable_model import MorphableModel, load_morphable_model
from leanface.networks.quantized import Quantizer
from leanface.networks.resnet import FaceReconstructionNet, build_network, scaled_widths
from leanface.quantization.fake_quantize import fake_quantize

ROOT = Path(__file__).parents[1]
SIZE = 64


@pytest.fixture(scope="session")
def root() -> Path:
    """The project's root folder."""
    return ROOT


@pytest.fixture
def project(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """An empty project that has this one's params.yaml and conf/, as the working directory."""
    (tmp_path / "params.yaml").write_text((ROOT / "params.yaml").read_text())
    (tmp_path / "conf").symlink_to(ROOT / "conf")
    monkeypatch.chdir(tmp_path)
    monkeypatch.delenv("MLFLOW_TRACKING_URI", raising=False)
    monkeypatch.delenv("DVC_EXP_NAME", raising=False)
    return tmp_path


def smooth_images(count: int, seed: int) -> Tensor:
    """Random pictures with structure, (count,3,64,64) in [0,1]: noise alone would average out."""
    coarse = torch.rand(count, 3, 6, 6, generator=torch.Generator().manual_seed(seed))
    return F.interpolate(coarse, size=SIZE, mode="bicubic").clamp(0.0, 1.0)


@pytest.fixture(scope="session", name="smooth_images")
def _smooth_images() -> Callable[[int, int], Tensor]:
    """(count, seed) -> images."""
    return smooth_images


@functools.cache  # it costs seconds; copy it before use
def _small_network() -> FaceReconstructionNet:
    torch.manual_seed(0)
    network = build_network(scaled_widths(1 / 4))
    for module in network.modules():
        if isinstance(module, nn.BatchNorm2d):
            nn.init.uniform_(module.weight, 0.5, 1.5)
            nn.init.normal_(module.bias, std=0.2)
    network.train()
    with torch.no_grad():
        for seed in range(3):
            network(smooth_images(16, seed))
    return network.eval()


@pytest.fixture
def small_network() -> FaceReconstructionNet:
    """A quarter of ResNet-50's width, with batch norms that a training might have left, in eval mode."""
    return copy.deepcopy(_small_network())


class Exported(NamedTuple):
    """The small network in every form that a runtime reads: bundles and ONNX files, in one folder."""

    float_bundle: Path
    int8_bundle: Path
    fp32: Path
    fp16: Path
    int8: Path


@pytest.fixture(scope="session")
def exported(tmp_path_factory: pytest.TempPathFactory) -> Exported:
    """Made once; do not change the files."""
    folder = tmp_path_factory.mktemp("exported")
    paths = Exported(*(folder / name for name in ("float", "int8", "fp32.onnx", "fp16.onnx", "int8.onnx")))
    network, quantizer = copy.deepcopy(_small_network()), Quantizer(residual=True)
    spec = bundle.new_spec(network, SIZE)
    bundle.save_bundle(network, spec, paths.float_bundle)
    for path in (paths.fp32, paths.fp16):
        save_model(export_network(network, spec, path.stem, opset=19), path, {})
    quantized = fake_quantize(network, smooth_images(16, seed=0), quantizer)
    spec = spec.model_copy(update={"quantizer": quantizer.model_dump()})
    bundle.save_bundle(quantized, spec, paths.int8_bundle)
    save_model(export_network(quantized, spec, "int8", opset=19), paths.int8, {})
    return paths


@pytest.fixture
def images() -> Tensor:
    """Four pictures, (4,3,64,64) in [0,1]."""
    return smooth_images(4, seed=7)


@pytest.fixture(scope="session")
def model() -> MorphableModel:
    return load_morphable_model()
