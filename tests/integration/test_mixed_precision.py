"""Mixed precision by search, with real files in the runtime of this CPU."""

import copy
from pathlib import Path

import pytest
import torch
from PIL import Image

from leanface import bundle, paths
from leanface.config import Budget
from leanface.errors import ConfigError
from leanface.face.morphable_model import MorphableModel
from leanface.files import read_json
from leanface.metrics.outputs import predict
from leanface.mixed_precision import MixedPrecision
from leanface.networks.quantized import Quantizer
from leanface.networks.resnet import FaceReconstructionNet
from leanface.quantization import budget as budget_module
from leanface.quantization.budget import Point, choose
from leanface.quantization.fake_quantize import fake_quantize
from leanface.quantization.rounding import round_weights
from leanface.synthesis.prepare import prepare_faces
from leanface.tasks.face.task import FaceTask
from tests.settings import FEW


def test_a_network_within_the_budget_is_found_and_all_that_was_measured_is_reported(
    project: Path, small_network: FaceReconstructionNet, model: MorphableModel, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(budget_module, "MOST", 2)
    prepare_faces(model, FEW, 0, paths.FACES)
    bundle.save_bundle(small_network, bundle.new_spec(small_network, 64), paths.DISTILLED)
    task, quantizer = FaceTask(model), Quantizer(residual=True, excluded_layers=("backbone.layer4.0.conv3",))
    reference = predict(small_network, task.split("val"))
    images = task.split("train").head(8).images
    network = fake_quantize(copy.deepcopy(small_network), images, quantizer)
    before = copy.deepcopy(network.state_dict())
    round_weights(network, images)
    mixed, chosen = MixedPrecision(task, network, before, quantizer, reference).within(Budget(latency=1e6))

    record = read_json(paths.BUDGET)
    points = [Point(tuple(point["kept"]), point["errors"], point["latency_ms"]) for point in record["points"]]
    assert [len(point.kept) for point in points] == [0, 1, 1, 2]
    assert record["runtime"] in ("openvino", "onnxruntime")
    assert chosen.excluded_layers == (*quantizer.excluded_layers, *choose(points, Budget(latency=1e6)).kept)
    with Image.open(paths.BUDGET_PICTURE) as picture:
        assert picture.width > 400
    # It is saved and read as any other.
    spec = bundle.new_spec(small_network, 64, quantizer=chosen.model_dump(mode="json"))
    bundle.save_bundle(mixed, spec, paths.QUANTIZED)
    again, _ = bundle.load_bundle(paths.QUANTIZED)
    with torch.inference_mode():
        assert torch.equal(again(images), mixed(images))
    with pytest.raises(ConfigError, match=r"cannot be met by any of 4 networks .* vertex_mm"):
        choose(points, Budget(error={"vertex_mm": 1e-9}))
