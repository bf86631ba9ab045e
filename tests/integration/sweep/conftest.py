"""A pipeline with the names and files of the real one, whose stages take no time."""

import os
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
import yaml

STAGE = '''
"""Counts its runs, and computes something from its parameters."""
import json, os, pathlib, sys, time, yaml
from leanface.device import describe_device
name = sys.argv[1]
config = yaml.safe_load(open("params.yaml"))
with open(os.environ["COUNT"], "a") as file:
    file.write(name + "\\n")
ratio, temperature = config["prune"]["ratio"], config["distill"]["temperature"]
if name == "configure":
    pathlib.Path("reports").mkdir(exist_ok=True)
    pathlib.Path("reports/config.yaml").write_text(yaml.safe_dump(config))
elif name == "probe":
    pathlib.Path("reports/device.json").write_text(json.dumps(describe_device()))
elif name == "report":
    row = {"truth_vertex_mm": 1 + ratio + temperature / 10, "latency_ms": 10 * (1 - ratio), "size_mb": 9.0,
           "speedup": 2 / (1 - ratio), "runtime": "openvino", "intervals": {}}
    gates = {"mse": {"limit": 1, "value": ratio, "interval": [ratio, ratio], "passed": ratio < 0.7, "bound": "max"}}
    summary = {"scale": "toy", "image_size": 64, "device": {"cpu": "x"}, "variants": {"quantized_int8": row},
               "gates": gates, "not_measured": {}, "not_run": []}
    pathlib.Path("reports/summary.json").write_text(json.dumps(summary))
else:
    if name == "distill" and temperature == 13:
        raise ValueError("loss is NaN")
    asleep = pathlib.Path(os.environ["COUNT"]).with_name(f"asleep-{ratio}")
    if name == "distill" and (temperature == 99 or temperature == 98 and not asleep.exists()):
        asleep.write_text(str(os.getpid()))
        time.sleep(600)
    time.sleep(0.3)
    pathlib.Path(name + ".txt").write_text(f"{ratio} {temperature}")
'''

SECTIONS = {"teacher": (["seed"], []), "prune": (["prune"], ["teacher"]), "distill": (["distill"], ["prune"])}


def pipeline() -> dict:
    command = f"{sys.executable} stage.py"
    stages: dict = {
        "configure": {
            "cmd": f"{command} configure",
            "deps": ["params.yaml"],
            "outs": [{"reports/config.yaml": {"cache": False}}],
        }
    }
    for name, (sections, before) in SECTIONS.items():
        stages[name] = {
            "cmd": f"{command} {name}",
            "params": [{"reports/config.yaml": sections}],
            "deps": [f"{other}.txt" for other in before],
            "outs": [f"{name}.txt"],
        }
    stages["probe"] = {
        "cmd": f"{command} probe",
        "always_changed": True,
        "outs": [{"reports/device.json": {"cache": False, "persist": True}}],
    }
    stages["report"] = {
        "cmd": f"{command} report",
        "deps": ["distill.txt", "reports/device.json"],
        "outs": [{"reports/summary.json": {"cache": False}}],
    }
    return {"stages": stages}


@pytest.fixture
def toy(tmp_path: Path, root: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The project, committed, as the working directory."""
    folder = tmp_path / "toy"
    folder.mkdir()
    (folder / "conf").symlink_to(root / "conf")
    (folder / "stage.py").write_text(STAGE)
    (folder / "dvc.yaml").write_text(yaml.safe_dump(pipeline()))
    (folder / "params.yaml").write_text("seed: 0\nprune: {ratio: 0.5}\ndistill: {temperature: 4}\n")
    (folder / ".gitignore").write_text("/.cache/\n/multirun/\n/mlflow.db\n/mlruns/\n*.txt\n")
    monkeypatch.chdir(folder)
    for name in ("AUTHOR", "COMMITTER"):
        monkeypatch.setenv(f"GIT_{name}_NAME", "test")
        monkeypatch.setenv(f"GIT_{name}_EMAIL", "test@test.invalid")
    for name in [name for name in os.environ if name.startswith(("DVC_", "MLFLOW_", "LEANFACE_"))]:
        monkeypatch.delenv(name)
    monkeypatch.setenv("COUNT", str(tmp_path / "count"))
    # A store that is out of reach at once: what goes to MLflow waits in the outbox, where tests read it.
    monkeypatch.setenv("MLFLOW_TRACKING_URI", "nothing://")
    for command in ("git init -q", "dvc init -q", "git add -A", "git commit -qm start"):
        subprocess.run([*([sys.executable, "-m"] if command.startswith("dvc") else []), *command.split()], check=True)
    return folder


@pytest.fixture
def ran(toy: Path) -> Callable[[], dict[str, int]]:
    """How often each stage was executed."""

    def count() -> dict[str, int]:
        path = Path(os.environ["COUNT"])
        lines = path.read_text().split() if path.exists() else []
        return {name: lines.count(name) for name in set(lines)}

    return count


@pytest.fixture
def start() -> Iterator[Callable[..., subprocess.Popen[str]]]:
    """`leanface sweep` as a process of its own, as from a terminal; it does not outlive the test."""
    processes: list[subprocess.Popen[str]] = []

    def sweep(*arguments: str) -> subprocess.Popen[str]:
        process = subprocess.Popen(
            [sys.executable, "-m", "leanface.sweep", *arguments],
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            start_new_session=True,
        )
        processes.append(process)
        return process

    yield sweep
    for process in processes:
        if process.poll() is None:
            process.kill()
        process.wait()
        if process.stdout is not None:
            process.stdout.close()
