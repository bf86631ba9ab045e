"""The champion as MLflow loads and serves it: what evaluation sees, and the faces that LeanFace finds."""

import base64
import json
import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import mlflow
import numpy as np
import pytest
from fastapi.testclient import TestClient
from mlflow import MlflowClient
from mlflow.entities import Run

from leanface import LeanFace, paths, tracking
from leanface.photos.load import PACKAGED_PHOTOS
from leanface.runtime import open_runtime

SUMMARY = {"gates": {"ssim": {"passed": True}}, "variants": {"quantized_int8": {"ssim": 0.98}}}
CROPS, PHOTOS = (f"models:/{name}@{tracking.CHAMPION}" for name in (tracking.MODEL, f"{tracking.MODEL}-photos"))

ELSEWHERE = """
import sys
import mlflow
import numpy as np
champion = mlflow.pyfunc.load_model(sys.argv[1])
np.save("found.npy", champion.predict(np.load("crops.npy")))
import leanface
print(leanface.__file__)
"""


@pytest.fixture
def champion(project: Path, runs: Callable[[], dict[str, Run]], exported) -> Path:
    """The network of a pipeline that passed its gates, which is the champion."""
    network = project / "quantized_int8.onnx"
    network.write_bytes(exported.int8.read_bytes())
    tracking.log_summary(SUMMARY, {}, [], {}, network)
    mlflow.set_tracking_uri(tracking.tracking_uri())
    version = MlflowClient().get_model_version_by_alias(tracking.MODEL, tracking.CHAMPION)
    assert version.run_id == runs()["pipeline"].info.run_id
    return network


def test_the_champion_gives_what_evaluation_sees_bit_for_bit_without_the_checkout(
    project: Path, champion: Path, images
) -> None:
    crops = (images.permute(0, 2, 3, 1).numpy() * 255).round().astype(np.uint8)
    np.save("crops.npy", crops)
    environment = {name: value for name, value in os.environ.items() if name != "PYTHONPATH"}
    environment["MLFLOW_TRACKING_URI"] = tracking.tracking_uri()
    command = [sys.executable, "-W", "ignore", "-c", ELSEWHERE, CROPS]
    said = subprocess.run(command, env=environment, check=True, capture_output=True, text=True).stdout
    assert "/code/leanface/" in said, "it runs the code that it brings"
    with open_runtime("openvino", champion) as runtime:
        expected = runtime.run(crops.transpose(0, 3, 1, 2).astype(np.float32) / np.float32(255))
    np.testing.assert_array_equal(np.load("found.npy"), expected)
    with pytest.raises(mlflow.exceptions.MlflowException, match="float32"):
        mlflow.pyfunc.load_model(CROPS).predict(images.permute(0, 2, 3, 1).numpy())
    folder = Path(mlflow.artifacts.download_artifacts(CROPS))
    requirements = (folder / "requirements.txt").read_text().split()
    assert all("==" in line for line in requirements)
    assert {"mlflow", "numpy", "onnxruntime", "openvino"} <= {line.partition("==")[0] for line in requirements}


def test_each_runtime_gets_the_flavor_that_it_reads_best(
    project: Path, runs: Callable[[], dict[str, Run]], exported, images, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name, file in (("quantized_int8", exported.int8), ("cpu_int8", exported.fp32)):  # told apart by what they give
        (project / f"{name}.onnx").write_bytes(file.read_bytes())
    tracking.log_summary(SUMMARY, {}, [], {}, project / "quantized_int8.onnx")
    mlflow.set_tracking_uri(tracking.tracking_uri())
    crops = (images.permute(0, 2, 3, 1).numpy() * 255).round().astype(np.uint8)
    floats = crops.transpose(0, 3, 1, 2).astype(np.float32) / np.float32(255)
    for vnni, read in ((True, exported.fp32), (False, exported.int8)):
        monkeypatch.setattr("leanface.runtime.has_vnni", lambda vnni=vnni: vnni)
        with open_runtime("openvino", read) as runtime:
            np.testing.assert_array_equal(mlflow.pyfunc.load_model(CROPS).predict(crops), runtime.run(floats))


def test_photos_are_served_as_the_faces_that_leanface_finds(project: Path, runs: Callable[[], dict[str, Run]]) -> None:
    network = project / "quantized_int8.onnx"
    network.write_bytes(paths.PACKAGED_MODEL.read_bytes())
    paths.MORPHABLE_MODEL.parent.mkdir(parents=True)
    paths.MORPHABLE_MODEL.write_bytes(paths.PACKAGED_MORPHABLE_MODEL.read_bytes())
    tracking.log_summary(SUMMARY, {}, [], {}, network)
    mlflow.set_tracking_uri(tracking.tracking_uri())
    from mlflow.pyfunc import scoring_server

    client = TestClient(scoring_server.init(mlflow.pyfunc.load_model(PHOTOS)))
    photo = base64.b64encode(PACKAGED_PHOTOS["astronaut"].read_bytes()).decode()
    asked = {"dataframe_records": [{"photo": photo}], "params": {"texture_size": 256}}
    answer = client.post("/invocations", json=asked)
    assert answer.status_code == 200, answer.text
    (row,) = answer.json()["predictions"]
    with LeanFace.load(network) as lean_face:
        (face,) = lean_face.reconstruct("astronaut")
    np.testing.assert_array_equal(np.array(row["coefficients"], np.float32), face.coefficients)
    assert row["photo"] == 0
    assert json.loads(row["description"])["pose"] == face.to_json()["pose"]
    assert base64.b64decode(row["glb"]).startswith(b"glTF")
    broken = client.post("/invocations", json={"dataframe_records": [{"photo": base64.b64encode(b"no").decode()}]})
    assert broken.status_code == 400
    assert "photo 0" in broken.text
