"""The champion as MLflow loads it: crops in, the coefficients that evaluation sees out."""

from collections.abc import Callable
from pathlib import Path

import mlflow
import numpy as np
import pytest
from mlflow import MlflowClient
from mlflow.entities import Run

from leanface import tracking
from leanface.runtime import open_runtime

SUMMARY = {"gates": {"ssim": {"passed": True}}, "variants": {"quantized_int8": {"ssim": 0.98}}}


def test_the_champion_gives_what_evaluation_sees_bit_for_bit(
    project: Path, runs: Callable[[], dict[str, Run]], exported, images
) -> None:
    network = project / "quantized_int8.onnx"
    network.write_bytes(exported.int8.read_bytes())
    tracking.log_summary(SUMMARY, {}, [], {}, network)
    mlflow.set_tracking_uri(tracking.tracking_uri())
    champion = mlflow.pyfunc.load_model(f"models:/{tracking.MODEL}@{tracking.CHAMPION}")
    crops = (images.permute(0, 2, 3, 1).numpy() * 255).round().astype(np.uint8)
    with open_runtime("openvino", exported.int8) as runtime:
        expected = runtime.run(crops.transpose(0, 3, 1, 2).astype(np.float32) / np.float32(255))
    np.testing.assert_array_equal(champion.predict(crops), expected)
    with pytest.raises(mlflow.exceptions.MlflowException, match="float32"):
        champion.predict(crops.astype(np.float32))
    folder = Path(mlflow.artifacts.download_artifacts(f"models:/{tracking.MODEL}@{tracking.CHAMPION}"))
    requirements = (folder / "requirements.txt").read_text().split()
    assert all("==" in line for line in requirements)
    assert {line.partition("==")[0] for line in requirements} == {"mlflow", "numpy", "openvino"}
    version = MlflowClient().get_model_version_by_alias(tracking.MODEL, tracking.CHAMPION)
    assert version.run_id == runs()["pipeline"].info.run_id


def test_both_runtimes_read_the_same_faces(exported, images) -> None:
    from leanface.tracking.crops_model import RUNTIMES  # at the top, MLflow's own warnings would be errors

    found = [open_network(str(exported.int8))(images.numpy()) for open_network in RUNTIMES.values()]
    assert found[0].shape == (4, 257)
    distance = np.linalg.norm(found[0] - found[1]) / np.linalg.norm(found[0])
    assert distance < 0.02, "they round INT8 differently"
