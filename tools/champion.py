"""Run MLflow's champion where only its own requirements are installed, and compare it with stage evaluate's numbers.

    python -m tools.champion DIR

In a checkout whose pipeline has run: DIR gets an environment of the model's requirements.txt, which reads the test
faces there, and answers a request through `mlflow models serve`.
"""

import argparse
import base64
import importlib
import json
import os
import socket
import subprocess
import sys
import time
import urllib.error
import urllib.request
import venv
from pathlib import Path
from typing import Any

BATCH_SIZE = 32
"""Of stage evaluate: a runtime may round the same image differently in another batch."""

PATIENCE_S = 120


def main() -> None:
    """Print what was found; exits with 1 if a number differs."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("folder", type=Path)
    folder = parser.parse_args().folder.absolute()

    import numpy as np

    from leanface import catalog, paths, tracking
    from leanface.device import has_vnni
    from leanface.files import read_json
    from leanface.photos.load import PACKAGED_PHOTOS

    mlflow: Any = importlib.import_module("mlflow")  # its own types leave much open
    uri = tracking.tracking_uri()
    mlflow.set_tracking_uri(uri)
    name = f"models:/{tracking.MODEL}@{tracking.CHAMPION}"
    python = _environment(folder, Path(mlflow.artifacts.download_artifacts(f"{name}/requirements.txt")))
    images, found = (paths.FACES / "test/images.npy").absolute(), folder / "coefficients.npy"
    environment = {key: value for key, value in os.environ.items() if key != "PYTHONPATH"}
    environment["MLFLOW_TRACKING_URI"] = uri
    command = [str(python), str(Path(__file__).absolute().with_name("champion_inside.py")), name, str(images)]
    done = subprocess.run([*command, str(found)], cwd=folder, env=environment, check=True, stdout=subprocess.PIPE)
    inside = json.loads(done.stdout)
    variant = catalog.DEPLOYED_ON_CPU if has_vnni() else catalog.DEPLOYED
    evaluated = read_json(paths.evaluation_dir(variant) / "metrics.json")
    measured = _evaluate(np.load(found), folder)
    known = {key: value["mean"] for key, value in evaluated["measures"].items()}
    different = {key: (known[key], measured[key]) for key in known if known[key] != measured[key]}
    print(f"{len(known) - len(different)} of {len(known)} measures of {variant} are stage evaluate's, to the last bit")
    reported = _reported(variant, evaluated["runtime"]) or float("nan")
    print(
        f"an image: {inside['latency_ms']:.3f} ms through MLflow, {inside['network_ms']:.3f} ms in its runtime; "
        f"{reported:.3f} ms in the report"
    )
    photo = PACKAGED_PHOTOS["astronaut"].read_bytes()
    served = _serve(python, name, folder, environment,
                    {"instances": np.load(images)[:2].tolist()})  # fmt: skip
    same = np.array_equal(np.array(served["predictions"], np.float32), np.load(folder / "pair.npy"))
    print(f"mlflow models serve, crops: {'the same bits' if same else 'DIFFERENT'}")
    rows = _serve(python, f"models:/{tracking.MODEL}-photos@{tracking.CHAMPION}", folder, environment,
                  {"dataframe_records": [{"photo": base64.b64encode(photo).decode()}]})["predictions"]  # fmt: skip
    (folder / "face.glb").write_bytes(base64.b64decode(rows[0]["glb"]))
    print(f"mlflow models serve, photos: {len(rows)} face, a GLB of {(folder / 'face.glb').stat().st_size} bytes")
    sys.exit(bool(different) or not same)


def _environment(folder: Path, requirements: Path) -> Path:
    """Return the Python of an environment that has what the model asks for, and nothing else."""
    python = folder / "environment/bin/python"
    if not python.exists():
        venv.create(folder / "environment", with_pip=True)
        subprocess.run([python, "-m", "pip", "install", "--quiet", "-r", requirements], check=True)
    return python


def _evaluate(coefficients: Any, folder: Path) -> dict[str, float]:
    """Return stage evaluate's measures of these coefficients of the test faces, in order."""
    from leanface import paths
    from leanface.config import load_config
    from leanface.metrics.estimate import means
    from leanface.runtime import open_runtime
    from leanface.task import evaluate_of

    config, at = load_config(paths.CONFIG), 0

    def student(images: Any) -> Any:
        nonlocal at
        at += len(images)
        return coefficients[at - len(images) : at] if at <= len(coefficients) else coefficients[: len(images)]  # photos

    with open_runtime("torch", paths.TEACHER) as teacher:
        scores = evaluate_of(config.task)(
            teacher.run, student, config.evaluate, config.data, BATCH_SIZE, folder / "pictures"
        )
    return means(scores.samples)


def _reported(variant: str, runtime: str) -> float | None:
    from leanface import paths
    from leanface.metrics.measurements import BenchmarkRecord

    record = BenchmarkRecord.model_validate_json(paths.BENCHMARK.read_text())
    wanted = (variant, runtime, 1, 1)
    return next(row.latency_ms for row in record.rows if (row.variant, row.runtime, row.batch, row.streams) == wanted)


def _serve(python: Path, model: str, folder: Path, environment: dict[str, str], request: Any) -> Any:
    """Return what `mlflow models serve` answers."""
    with socket.create_server(("127.0.0.1", 0)) as free:
        port = free.getsockname()[1]
    command = [python, "-m", "mlflow", "models", "serve", "-m", model, "--env-manager", "local", "--port", str(port)]
    path = f"{python.parent}:{environment['PATH']}"
    with (folder / "serve.log").open("w") as log, subprocess.Popen(
        command, cwd=folder, env=environment | {"PATH": path}, stdout=log, stderr=log
    ) as server:  # fmt: skip
        try:
            return _ask(f"http://127.0.0.1:{port}/invocations", json.dumps(request).encode(), server)
        finally:
            server.terminate()


def _ask(url: str, body: bytes, server: subprocess.Popen[bytes]) -> Any:
    deadline = time.monotonic() + PATIENCE_S
    while True:
        try:
            asked = urllib.request.Request(url, body, {"Content-Type": "application/json"})
            with urllib.request.urlopen(asked) as answer:
                return json.load(answer)
        except urllib.error.HTTPError as error:
            raise SystemExit(f"{url}: {error} {error.read().decode()}") from None
        except OSError:  # it has not started yet
            if server.poll() is not None or time.monotonic() > deadline:
                raise SystemExit("mlflow models serve did not start: see serve.log") from None
            time.sleep(0.5)


if __name__ == "__main__":
    main()
