"""The whole pipeline, as a user runs it, on a copy of this project: digits at scale `tiny`, the fastest."""

import hashlib
import json
import os
import re
import shutil
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

from leanface import catalog, paths, tracking

ROOT = Path(__file__).parents[2]
EXPERIMENT_STAGES = {"configure", "probe", "distill", "quantize", "report"}
"""Export to benchmark follow if another network comes out: the best weights of so short a training may be its first."""

BEFORE_DISTILL = {"prepare", "teacher", "analyze", "prune", "export@teacher_fp32", "build@teacher_fp32"}

pytestmark = pytest.mark.timeout(900)

Run = Callable[..., subprocess.CompletedProcess[str]]


def environment() -> dict[str, str]:
    """Ours, with this interpreter's commands first, and independent of the user's git and MLflow settings."""
    identity = {
        f"GIT_{who}_{what}": f"test@{who.lower()}.invalid"
        for who in ("AUTHOR", "COMMITTER")
        for what in ("NAME", "EMAIL")
    }
    inherited = {name: value for name, value in os.environ.items() if not name.startswith(("MLFLOW_", "DVC_"))}
    path = f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}"
    return {**inherited, **identity, "PATH": path, "OMP_WAIT_POLICY": "PASSIVE"}


@pytest.fixture(scope="module")
def copy(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """What a clone would hold if everything here were committed."""
    folder = tmp_path_factory.mktemp("clone")
    command = ["git", "ls-files", "--cached", "--others", "--exclude-standard", "-z"]
    listed = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=True).stdout
    for name in filter(None, listed.split("\0")):
        if (ROOT / name).is_file():  # a deleted file is still listed
            (folder / name).parent.mkdir(parents=True, exist_ok=True)
            shutil.copy(ROOT / name, folder / name)
    # Made by this machine's own runs; a test must make its own.
    shutil.rmtree(folder / paths.REPORTS, ignore_errors=True)
    (folder / "dvc.lock").unlink(missing_ok=True)
    return folder


@pytest.fixture(scope="module")
def run(copy: Path) -> Run:
    """Runs a command in the copy."""

    def call(*command: str, fails: bool = False) -> subprocess.CompletedProcess[str]:
        done = subprocess.run(
            command,
            cwd=copy,
            env=environment(),
            text=True,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            check=False,
        )
        assert (done.returncode != 0) == fails, done.stdout
        return done

    return call


@pytest.fixture(scope="module")
def repro(copy: Path, run: Run) -> str:
    """The first `dvc repro`, committed; its output."""
    params = copy / paths.PARAMS
    text = re.sub(r"^scale: \w+", "scale: tiny", params.read_text(), flags=re.M)
    params.write_text(re.sub(r"^task: \w+", "task: digits", text, flags=re.M))
    run("git", "init", "-q")
    run("git", "add", "-A")
    run("git", "commit", "-qm", "start")
    done = run("dvc", "repro")
    run("git", "add", "-A")
    run("git", "commit", "-qm", "result")
    return done.stdout


def stages_run(output: str) -> set[str]:
    return set(re.findall(r"Running stage '([^']+)'", output))


def digests(copy: Path) -> dict[str, str]:
    """sha256 of everything that the pipeline made and a user would miss."""
    files = [path for folder in ("data", "models") for path in (copy / folder).rglob("*") if path.is_file()]
    files += [copy / paths.CONFIG, copy / paths.SUMMARY, copy / paths.REPORT_HTML]
    return {str(path): hashlib.sha256(path.read_bytes()).hexdigest() for path in files}


def summaries(copy: Path) -> list[dict[str, str]]:
    """Parameters of MLflow's summary runs."""
    script = (
        "import json, sys, mlflow\n"
        "client = mlflow.MlflowClient(sys.argv[1])\n"
        "experiment = client.get_experiment_by_name(sys.argv[2])\n"
        "runs = client.search_runs([experiment.experiment_id], f\"tags.{sys.argv[3]} LIKE '%'\")\n"
        "assert all('quantized_int8/truth_error' in run.data.metrics for run in runs)\n"
        "print(json.dumps([run.data.params for run in runs]))\n"
    )
    arguments = [f"sqlite:///{copy / 'mlflow.db'}", tracking.EXPERIMENT, tracking.SUMMARY_TAG]
    done = subprocess.run(
        [sys.executable, "-c", script, *arguments],
        env=environment(),
        capture_output=True,
        text=True,
        check=True,
    )
    return json.loads(done.stdout.splitlines()[-1])


def test_the_pipeline_runs_every_stage_and_leaves_what_it_promises(copy: Path, repro: str, run: Run) -> None:
    listed = run("dvc", "stage", "list", "--name-only").stdout.split()
    assert stages_run(repro) == set(listed)
    summary = json.loads((copy / paths.SUMMARY).read_text())
    assert set(summary["variants"]) == set(catalog.EVALUATED)
    assert summary["gates"]
    assert (copy / paths.REPORT_HTML).stat().st_size > 10_000
    # What the original's source says of its weights is handed on to the last network's card.
    assert "| License of the weights | for whoever trained it to say |" in (copy / paths.MODEL_CARD).read_text()
    for variant in catalog.EVALUATED:
        assert (copy / paths.onnx_path(variant)).is_file()
        assert (copy / paths.evaluation_dir(variant) / "metrics.json").is_file()
    assert run("git", "status", "--porcelain").stdout == ""
    assert [params["scale"] for params in summaries(copy)] == ["tiny"]


def test_a_second_run_has_nothing_to_do_but_look(copy: Path, repro: str, run: Run) -> None:
    before = digests(copy)
    assert stages_run(run("dvc", "repro").stdout) == {"configure", "probe"}
    assert digests(copy) == before


@pytest.mark.parametrize(
    ("override", "says"),
    [
        ("prune.ratio=1.5", "prune.ratio: Input should be less than or equal to 0.95"),
        ("scale=huge", "Valid in conf/scale/: gpu, laptop, tiny"),
        ("prune.importance=guess", "Valid in conf/prune/importance/: batch_norm_scale, fpgm"),
        ("+prune.ratoi=0.3", "Did you mean ratio"),
        ("+data.yaw_max_rad=1", "data.yaw_max_rad: unknown key"),  # the face's
        ("+evaluate.gates.ssim_min=0.9", "evaluate.gates: there is no ssim_min"),
        ("task=digit", "Did you mean digits"),
    ],
)
def test_a_wrong_parameter_stops_the_run_and_costs_nothing(
    copy: Path, repro: str, run: Run, override: str, says: str
) -> None:
    before = digests(copy)
    output = run("dvc", "exp", "run", "-S", override, fails=True).stdout
    assert "ConfigError: " in output
    assert says in output
    assert "Traceback" not in output
    assert digests(copy) == before
    # Rewritten rather than checked out: git does not see a change of equal size within the same second.
    committed = run("git", "show", f"HEAD:{paths.PARAMS}").stdout
    (copy / paths.PARAMS).write_text(committed)


OWN_TASK = """
import torch
from leanface.tasks.classification.classifier import Classifier

class Own(Classifier):
    class_count, image_size = 3, 16

    def network(self):
        return torch.nn.Sequential(torch.nn.Conv2d(3, {outputs}, 3), torch.nn.AdaptiveAvgPool2d(1), {last})

    def samples(self, seed):
        images, labels = torch.rand(12, {channels}, 16, 16), torch.arange(12) % 3
        return {{name: (images {change}, labels) for name in ("train", "val", "test")}}
"""
RIGHT = {"outputs": 3, "last": "torch.nn.Flatten()", "channels": 3, "change": ""}


@pytest.mark.parametrize(
    ("task", "changes", "says"),
    [
        ("own.py:Owm", {}, r"ConfigError: own\.py has no class Owm\. Did you mean Own\?"),
        ("own.py:Own", {"last": "torch.nn.Flatten("}, r"ConfigError: own\.py, line \d+: SyntaxError"),
        ("own.py:Own", {"change": "* torch.nan"}, "ArtifactError: the images of split train have NaN"),
        ("own.py:Own", {"channels": 1}, r"ArtifactError: the images of split train have shape \(12, 1, 16, 16\)"),
        ("own.py:Own", {"outputs": 4}, r"ArtifactError: the network answers 2 images with shape \(2, 4\); expected"),
        ("own.py:Own", {"last": "torch.nn.LPPool2d(2, 1), torch.nn.Flatten()"}, r"NetworkError: .*\n.*LPPool2d"),
    ],
)
def test_a_wrong_task_stops_the_run_with_one_error_and_costs_nothing(
    copy: Path, repro: str, run: Run, task: str, changes: dict[str, object], says: str
) -> None:
    before = digests(copy)
    (copy / "own.py").write_text(OWN_TASK.format(**RIGHT | changes))
    output = run("leanface", "compress", task, fails=True).stdout
    assert len(re.findall(says, output)) == 1, output
    assert "Traceback" not in output
    (copy / "own.py").unlink()
    run("git", "checkout", "--", ".")
    run("dvc", "checkout", "--force")  # DVC clears what a stage is about to make, but keeps it in its cache
    run("leanface", "stage", "configure")
    assert digests(copy) == before
    assert (copy / paths.PREPARE_REPORT).is_dir()


@pytest.fixture
def experiment(repro: str, run: Run) -> str:
    return run("dvc", "exp", "run", "--temp", "-n", "softer", "-S", "distill.temperature=2").stdout


def test_an_experiment_reruns_just_what_follows_its_change(copy: Path, run: Run, experiment: str) -> None:
    ran = stages_run(experiment)
    assert ran >= EXPERIMENT_STAGES
    assert not ran & BEFORE_DISTILL
    assert run("git", "status", "--porcelain").stdout == "", "the workspace stays as it was"
    shown = json.loads(run("dvc", "exp", "show", "--json").stdout)
    names = {entry.get("name") for base in shown for entry in (base["experiments"] or [])}
    assert "softer" in names
    temperatures = sorted(float(params["distill.temperature"]) for params in summaries(copy))
    assert temperatures == [2.0, 4.0]
