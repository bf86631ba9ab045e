"""Deliveries that are killed, that come at once, that find a silent server or a full disk."""

import os
import shutil
import signal
import socket
import subprocess
import sys
import time
import urllib.request
from pathlib import Path

import pytest
from mlflow import MlflowClient

from leanface import tracking

pytestmark = pytest.mark.filterwarnings("ignore")  # MLflow's own

ROOT = Path(__file__).parents[2]

RECORD = """
import shutil, sys
from pathlib import Path
from leanface import tracking
Path("report.md").write_text(f"report of {sys.argv[1]}")
summary = {"gates": {"ssim": {"passed": True}}, "variants": {"quantized_int8": {"ssim": 0.98}}}
network = Path(shutil.copy(sys.argv[2], "quantized_int8.onnx"))
tracking.log_summary(summary, {"run": sys.argv[1]}, [Path("report.md")], {}, network)
"""

STAGES = """
from leanface import tracking
for number in range(8):
    with tracking.stage_run(f"run{number}", {}, {}, live_after_s=3600) as run:
        run.log({"x": 1.0}, 0)
"""

DELIVER = "from leanface import tracking\nprint(tracking.deliver())"

KILLED = """
import os, signal
import mlflow
from leanface import tracking
def killed(*_, **__):
    os.kill(os.getpid(), signal.SIGKILL)
for method in METHODS:
    child = os.fork()
    if child == 0:
        setattr(mlflow.MlflowClient, method, killed)
        tracking.deliver()
        os._exit(0)
    print(method, os.WTERMSIG(os.waitpid(child, 0)[1]))
print(tracking.deliver())
"""
"""Processes that the system ends when they are about to call one of these methods, and one that gets through."""

METHODS = (
    "create_run",
    "log_batch",
    "log_artifacts",
    "create_logged_model",
    "log_model_artifacts",
    "finalize_logged_model",
    "log_outputs",
    "create_model_version",
    "set_registered_model_alias",
    "set_terminated",
)

TOGETHER = """
import os
import mlflow
from leanface import tracking
children = []
for number in range(4):
    children.append(os.fork())
    if children[-1] == 0:
        print(tracking.deliver(), flush=True)
        os._exit(0)
for child in children:
    assert os.waitpid(child, 0)[1] == 0
"""

FULL = """
import resource
resource.setrlimit(resource.RLIMIT_FSIZE, (0, 0))
"""
"""No file can grow any more, as on a full disk."""


def start(project: Path, script: str, *arguments: str, **environment: str) -> subprocess.Popen[str]:
    inherited = {name: value for name, value in os.environ.items() if not name.startswith(("MLFLOW_", "DVC_"))}
    return subprocess.Popen(
        [sys.executable, "-W", "ignore", "-c", script, *arguments], cwd=project, text=True,
        env={**inherited, "PYTHONPATH": str(ROOT / "src"), **environment},
        stdout=subprocess.PIPE, stderr=subprocess.STDOUT,
    )  # fmt: skip


def run(project: Path, script: str, *arguments: str, **environment: str) -> str:
    process = start(project, script, *arguments, **environment)
    output, _ = process.communicate()
    assert process.returncode == 0, output
    return output


def names(uri: str) -> list[str]:
    client = MlflowClient(uri)
    return sorted(
        found.info.run_name or ""
        for experiment in client.search_experiments()
        for found in client.search_runs([experiment.experiment_id])
    )


def waiting(project: Path) -> int:
    return len(list(project.glob(".cache/mlflow-outbox/*")))


@pytest.fixture
def store(project: Path) -> str:
    return f"sqlite:///{project / 'mlflow.db'}"


def test_deliveries_that_are_killed_anywhere_are_finished_by_the_next(
    project: Path, store: str, exported, mlflow_database: Path
) -> None:
    shutil.copy(mlflow_database, project / "mlflow.db")
    run(project, RECORD, "A", str(exported.int8), MLFLOW_TRACKING_URI="nothing://")
    output = run(project, f"METHODS = {METHODS}\n{KILLED}").splitlines()
    assert output[-1 - len(METHODS) :] == [*(f"{method} {signal.SIGKILL.value}" for method in METHODS), "1"]
    assert waiting(project) == 0
    assert names(store) == ["pipeline"]
    client = MlflowClient(store)
    version = client.get_model_version_by_alias(tracking.MODEL, tracking.CHAMPION)
    found = client.get_run(version.run_id)
    assert version.version == 1
    assert found.info.status == "FINISHED"
    assert found.data.params == {"run": "A"}
    assert found.data.metrics == {"quantized_int8/ssim": 0.98, "ssim": 0.98}
    assert len(client.search_logged_models([found.info.experiment_id])) == 1


def test_several_first_users_of_a_new_store_at_once(project: Path, store: str) -> None:
    run(project, STAGES)
    output = run(project, TOGETHER)
    assert sum(int(line) for line in output.splitlines() if line.isdecimal()) == 8, output
    assert names(store) == [f"run{number}" for number in range(8)]
    assert waiting(project) == 0


def test_a_server_that_never_answers_keeps_no_stage(project: Path) -> None:
    with socket.create_server(("127.0.0.1", 0)) as silent:
        uri = f"http://127.0.0.1:{silent.getsockname()[1]}"
        script = STAGES.replace("3600", "0").replace("range(8)", "range(1)").replace("run.log(", "run.log_live(")
        output = run(project, script, MLFLOW_TRACKING_URI=uri, MLFLOW_HTTP_REQUEST_TIMEOUT="1")
    assert "out of reach" in output
    assert waiting(project) == 1


def test_on_a_full_disk_a_stage_ends_well_and_says_what_is_lost(project: Path) -> None:
    output = run(project, FULL + STAGES.replace("range(8)", "range(1)"))
    assert "run 'run0' is lost to MLflow" in output
    assert waiting(project) == 0


def test_a_disk_that_fills_during_the_delivery_loses_nothing(project: Path, store: str, mlflow_database: Path) -> None:
    shutil.copy(mlflow_database, project / "mlflow.db")
    run(project, STAGES)
    process = start(project, f"import mlflow\n{FULL}{DELIVER}")
    output, _ = process.communicate()
    assert process.returncode != 0, output
    assert waiting(project) == 8
    assert run(project, DELIVER).splitlines()[-1] == "8"
    assert len(names(store)) == 8


def test_what_a_server_missed_arrives_when_it_is_back(project: Path, exported, mlflow_database: Path) -> None:
    shutil.copy(mlflow_database, project / "server.db")
    with socket.create_server(("127.0.0.1", 0)) as free:
        port = free.getsockname()[1]
    uri = f"http://127.0.0.1:{port}"
    run(project, RECORD, "A", str(exported.int8), MLFLOW_TRACKING_URI=uri)
    assert waiting(project) == 1
    places = ["--backend-store-uri", f"sqlite:///{project}/server.db", "--artifacts-destination", str(project / "far")]
    server = subprocess.Popen(
        [sys.executable, "-m", "mlflow", "server", "--port", str(port), "--workers", "1", *places],
        cwd=project, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL, start_new_session=True,
    )  # fmt: skip
    try:
        while not answers(f"{uri}/health"):
            assert server.poll() is None
            time.sleep(0.5)
        assert run(project, DELIVER, MLFLOW_TRACKING_URI=uri).splitlines()[-1] == "1"
        assert names(uri) == ["pipeline"]
        version = MlflowClient(uri).get_model_version_by_alias(tracking.MODEL, tracking.CHAMPION)
        assert version.version == "1"
    finally:
        os.killpg(server.pid, signal.SIGTERM)
        server.wait()


def answers(address: str) -> bool:
    try:
        with urllib.request.urlopen(address, timeout=5) as response:
            return response.status == 200
    except OSError:
        return False
