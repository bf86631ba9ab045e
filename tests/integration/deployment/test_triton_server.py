"""The repository in a real Triton Inference Server, where one is installed.

PyPI's nvidia-pytriton has the server with its Python backend only (it asks for an older NumPy: install it apart, see
docs/deployment.md). There the Python backend runs the same ONNX files; all else is Triton's: the configurations, the
ensemble, dynamic batching, warm-up.
"""

import os
import shutil
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import onnxruntime
import pytest
import tritonclient.grpc as triton

from leanface.deployment.triton import export_triton
from leanface.photos.alignment import to_input

STAND_IN = """
import json
from pathlib import Path

import numpy as np
import onnxruntime
import triton_python_backend_utils as pb


class TritonPythonModel:
    def initialize(self, args):
        folder = Path(args["model_repository"]) / args["model_version"]
        self.session = onnxruntime.InferenceSession(str(folder / "model.onnx"), providers=["CPUExecutionProvider"])
        config = json.loads(args["model_config"])
        self.input, self.output = config["input"][0]["name"], config["output"][0]["name"]

    def execute(self, requests):
        # By DLPack: the wheel's own way to and from NumPy is that of NumPy 1.
        parts = [np.from_dlpack(pb.get_input_tensor_by_name(request, self.input)) for request in requests]
        (rows,) = self.session.run([self.output], {self.input: np.concatenate(parts)})
        ends = np.cumsum([len(part) for part in parts])[:-1]
        return [pb.InferenceResponse([pb.Tensor.from_dlpack(self.output, part)]) for part in np.split(rows, ends)]
"""


class Server(NamedTuple):
    client: Any
    repository: Path


@pytest.fixture(scope="module")
def server(exported: Any, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    program = shutil.which("tritonserver")
    if program is None:
        pytest.skip("no tritonserver on the PATH; docs/deployment.md says how to get one")
    backends = Path(program).resolve().parents[1] / "backends"
    folder = tmp_path_factory.mktemp("triton")
    repository = folder / "repository"
    export_triton(exported.fp32, folder / "none.plan", repository, batch_max=8)
    if not (backends / "onnxruntime").is_dir():
        backends = python_backend(backends, folder / "backends")
        stand_in(repository)
    http, grpc = free_port(), free_port()
    command = [
        *(program, f"--model-repository={repository}", f"--backend-directory={backends}"),
        *("--model-control-mode=explicit", "--load-model=leanface", "--allow-metrics=false"),
        *("--http-address=127.0.0.1", f"--http-port={http}", "--grpc-address=127.0.0.1", f"--grpc-port={grpc}"),
    ]
    # The Python backend starts an interpreter of its own, which needs this one's packages.
    environment = os.environ | {"PYTHONPATH": os.pathsep.join(path for path in sys.path if path)}
    log = folder / "log"
    with log.open("w") as output:
        process = subprocess.Popen(command, stdout=output, stderr=subprocess.STDOUT, env=environment)
    try:
        client = triton.InferenceServerClient(f"127.0.0.1:{grpc}")
        for _ in range(300):
            assert process.poll() is None, log.read_text()
            if is_ready(client):
                break
            time.sleep(0.1)
        else:
            raise AssertionError(log.read_text())
        yield Server(client, repository)
        client.close()
    finally:
        process.terminate()
        try:
            process.wait(30)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()


def python_backend(backends: Path, target: Path) -> Path:
    """The wheel keeps what starts each version of Python apart."""
    stub = backends.parent / "python_backend_stubs" / f"{sys.version_info.major}.{sys.version_info.minor}"
    shutil.copytree(backends / "python", target / "python")
    if stub.is_dir():
        # A link: it looks for its libraries beside where it really lies.
        (target / "python" / "triton_python_backend_stub").symlink_to(stub / "triton_python_backend_stub")
    return target


def stand_in(repository: Path) -> None:
    for config in repository.glob("*/config.pbtxt"):
        text = config.read_text()
        if 'platform: "onnxruntime_onnx"' in text:
            config.write_text(text.replace('platform: "onnxruntime_onnx"', 'backend: "python"'))
            (config.parent / "1" / "model.py").write_text(STAND_IN)


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return probe.getsockname()[1]


def is_ready(client: Any) -> bool:
    try:
        return client.is_server_ready() and client.is_model_ready("leanface")
    except triton.InferenceServerException:  # it does not listen yet
        return False


def ask(client: Any, crops: np.ndarray) -> np.ndarray:
    tensor = triton.InferInput("crops", crops.shape, "UINT8")
    tensor.set_data_from_numpy(crops)
    return client.infer("leanface", [tensor]).as_numpy("coefficients")


def test_the_ensemble_answers_as_the_network_does_alone(server: Server) -> None:
    crops = np.random.default_rng(0).integers(0, 256, (3, 64, 64, 3), np.uint8)
    session = onnxruntime.InferenceSession(str(server.repository / "leanface_onnx/1/model.onnx"))
    (expected,) = session.run(None, {"images": np.stack([to_input(crop) for crop in crops])})
    answer = ask(server.client, crops)
    assert answer.shape == (3, 257)
    np.testing.assert_allclose(answer, expected, atol=1e-4)


def test_requests_at_the_same_time_are_read_together(server: Server) -> None:
    crops = np.random.default_rng(1).integers(0, 256, (64, 1, 64, 64, 3), np.uint8)
    alone = [ask(server.client, crop) for crop in crops[:4]]
    before = executions(server.client)
    with ThreadPoolExecutor(16) as threads:
        answers = list(threads.map(lambda crop: ask(server.client, crop), crops))
    assert executions(server.client) - before < len(crops)
    np.testing.assert_allclose(answers[:4], alone, atol=1e-4)


def executions(client: Any) -> int:
    """How often the network ran; a batch counts once."""
    (model,) = client.get_inference_statistics("leanface_onnx").model_stats
    return model.execution_count


def test_more_crops_than_a_batch_holds_and_other_sizes_are_refused(server: Server) -> None:
    with pytest.raises(triton.InferenceServerException, match="batch"):
        ask(server.client, np.zeros((9, 64, 64, 3), np.uint8))
    with pytest.raises(triton.InferenceServerException, match="shape"):
        ask(server.client, np.zeros((1, 32, 32, 3), np.uint8))
