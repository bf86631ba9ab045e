"""The example of a network of one's own through the stages; and what is said of a task's file that does not work."""

import importlib
import inspect
import shutil
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
import yaml

from leanface import bundle, paths
from leanface.cli import main
from leanface.config import Samples, TaskChoice, load_config
from leanface.deployment.bundle import export_bundle
from leanface.deployment.triton import export_triton
from leanface.errors import ArtifactError, ConfigError
from leanface.metrics.measurements import read_evaluation
from leanface.reconstruction.network import open_network
from leanface.runner import stage_sections
from leanface.stages import configure
from leanface.task import network_of, prepare_of

EXAMPLE = Path(__file__).parents[2] / "examples/own_network/gratings.py"
ROOT = Path(__file__).parents[2]


def run_stage(name: str, **arguments: Any) -> dict[str, float]:
    """As `leanface stage` does, without MLflow."""
    run, config = importlib.import_module(f"leanface.stages.{name}").run, load_config(paths.CONFIG)
    if "log" in inspect.signature(run).parameters:
        arguments["log"] = lambda metrics, step: None
    return run(**{section: getattr(config, section) for section in stage_sections(name)}, **arguments)


@pytest.fixture(scope="module")
def chain(tmp_path_factory: pytest.TempPathFactory) -> Iterator[dict[str, dict[str, float]]]:
    """A project in which the example went from its own data to an evaluated INT8 file; what each stage returned."""
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(tmp_path_factory.mktemp("project"))
        shutil.copytree(ROOT / "conf", "conf")
        shutil.copy(EXAMPLE, "gratings.py")
        paths.PARAMS.write_text(
            yaml.safe_dump({"task": "gratings.py:Gratings", "distill": {"optimizer": {"steps": 20}}})
        )
        configure.run()
        done = {
            name: run_stage(name)
            for name in ("prepare", "teacher", "analyze", "search", "prune", "distill", "quantize")
        }
        for variant in ("teacher_fp32", "quantized_int8"):
            done |= {f"{name}@{variant}": run_stage(name, variant=variant) for name in ("export", "evaluate")}
        yield done


def test_the_example_keeps_its_accuracy(chain: dict[str, dict[str, float]]) -> None:
    assert chain["teacher"]["accuracy"] > 0.9
    prune = chain["prune"]
    assert prune["compensated/teacher_kl"] < prune["pruned/teacher_kl"]
    assert prune["macs_share"] < 0.5
    teacher, student = (
        read_evaluation(paths.evaluation_dir(name) / "metrics.json") for name in ("teacher_fp32", "quantized_int8")
    )
    assert teacher.mean("teacher_agreement") == 1
    assert (student.mean("accuracy") or 0) > (teacher.mean("accuracy") or 1) - 0.1
    assert student.constant["accuracy"] < 0.2  # eight classes
    assert {file.name for file in paths.evaluation_dir("quantized_int8").glob("*.png")} == {
        "confusion.png",
        "worst.png",
    }


def test_its_files_are_refused_where_faces_are_read(chain: dict[str, dict[str, float]]) -> None:
    for file in (paths.onnx_path("quantized_int8"), paths.DISTILLED):
        with pytest.raises(ArtifactError, match=r"of task gratings\.py:Gratings; this is for networks"):
            open_network(file, "auto", 1)


def test_its_files_run_without_pytorch(chain: dict[str, dict[str, float]], tmp_path: Path) -> None:
    file, folder = paths.onnx_path("quantized_int8"), tmp_path / "bundle"
    with pytest.raises(ArtifactError, match="leave out the morphable model"):
        export_bundle(file, folder, morphable_model=paths.PACKAGED_MORPHABLE_MODEL)
    assert main(["export", "bundle", str(folder), "--model", str(file)]) == 0
    assert not (folder / "morphable_model.npz").exists()
    command = [sys.executable, "leanface_network.py"]
    for runtime in ("openvino", "onnxruntime"):
        subprocess.run([*command, "--check", "--runtime", runtime], cwd=folder, check=True)
    image = np.load(paths.SAMPLES / "test/images.npy")[0]
    np.save(folder / "image.npy", image.transpose(1, 2, 0))
    subprocess.run([*command, "image.npy", "--out", "scores.npy"], cwd=folder, check=True)
    network, _ = bundle.load_bundle(paths.QUANTIZED)
    expected = network(torch.from_numpy(image)[None] / 255)[0].argmax()
    assert np.load(folder / "scores.npy").argmax() == expected
    np.save(folder / "image.npy", np.zeros((16, 32, 3), np.uint8))
    refused = subprocess.run([*command, "image.npy"], cwd=folder, check=False, capture_output=True, text=True)
    assert "has 32 x 16 pixels; expected 32 x 32" in refused.stderr


def test_triton_is_told_how_many_outputs_it_has(chain: dict[str, dict[str, float]], tmp_path: Path) -> None:
    export_triton(paths.onnx_path("quantized_int8"), tmp_path / "none.plan", tmp_path / "repository", batch_max=8)
    for name in ("leanface", "leanface_onnx", "leanface_tensorrt"):
        assert "data_type: TYPE_FP32 dims: [8]" in (tmp_path / "repository" / name / "config.pbtxt").read_text()


def test_its_bundle_fits_its_file_alone(chain: dict[str, dict[str, float]]) -> None:
    network, spec = bundle.load_bundle(paths.QUANTIZED)
    assert network(torch.zeros(1, 3, 32, 32)).shape == (1, 8)
    assert spec.task == "gratings.py:Gratings"
    file = Path("gratings.py")
    file.write_text(file.read_text() + "# another network\n")
    with pytest.raises(ArtifactError, match=r"gratings\.py has changed since"):
        bundle.load_bundle(paths.QUANTIZED)


@pytest.mark.parametrize(
    ("task", "source", "says"),
    [
        ("own.py:Own", "class Own:\n    outputs =\n", r"own\.py, line 2: SyntaxError"),
        ("own.py:Own", "import torch\n\n\nx = torch.no_such_thing\n", r"own\.py, line 4: AttributeError"),
        ("own.py:Owned", "class Own: ...\n", r"own\.py has no class Owned\. Did you mean Own\?"),
        ("own.py", "class Own: ...\n", r"own\.py is a file, not a class\. It has Own; name one as task: own\.py:CLASS"),
        ("other.py:Own", "", r"other\.py cannot be read \(No such file"),
        ("faec", "", r"no task 'faec'\. Did you mean face\? Use face, digits, or path/to/my_task\.py:MyTask"),
    ],
)
def test_a_task_that_cannot_be_had_is_named(
    task: str, source: str, says: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    Path("own.py").write_text(source)
    with pytest.raises(ConfigError, match=says):
        network_of(task)


@pytest.mark.parametrize(
    ("broken", "says"),
    [
        ("def samples(self, seed, more):", r"Gratings fails: TypeError: .* missing 1 required positional argument"),
        ("def samples(self, seed):\n        return []\n", "Gratings fails: AttributeError: 'list' object"),
    ],
)
def test_the_users_own_code_is_named_where_it_fails(
    broken: str, says: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    source = EXAMPLE.read_text().replace("def samples(self, seed: int) -> dict[str, tuple[Tensor, Tensor]]:", broken)
    Path("own.py").write_text(source)
    prepare = prepare_of(TaskChoice(name="own.py:Gratings"))
    with pytest.raises(ConfigError, match=says + r".*, line \d+\)"):
        prepare(Samples(image_size=32), 0)
    assert not paths.PREPARED.exists()
