"""Stages without DVC, Hydra and MLflow: run in pieces, packed small, put back elsewhere."""

import json
import os
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path

import psutil
import pytest
import safetensors.torch
import torch
import yaml

from leanface import bundle, catalog, paths
from leanface.errors import ArtifactError, ConfigError, LeanFaceError, Unfinished
from leanface.runner import run_stage
from tools.gpu_box.pack import pack, unpack
from tools.gpu_box.record import Run, begin, ids_of, load_run, save_run
from tools.gpu_box.run import log_path, resolve, run_offline
from tools.gpu_box.steps import choose, object_id, read_steps
from tools.gpu_box.weights import expand, round_bundle, shrink

ABSENT = ("dvc", "hydra", "mlflow", "openvino", "tensorrt_rtx_bindings")
"""What a GPU machine lacks. (ModelOpt imports omegaconf.)"""

BLOCKER = f"""
import sys

class Absent:
    def find_spec(self, name, path=None, target=None):
        if name.partition(".")[0] in {ABSENT!r}:
            raise ModuleNotFoundError(f"No module named {{name!r}}", name=name)

sys.meta_path.insert(0, Absent())
"""


@pytest.fixture
def tiny(project: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A project at scale tiny with this pipeline, its configuration resolved, on a machine that lacks `ABSENT`."""
    params = (project / paths.PARAMS).read_text().replace("scale: laptop", "scale: tiny")
    (project / paths.PARAMS).write_text(params)
    root = Path(__file__).parents[3]
    (project / paths.PIPELINE).symlink_to(root / paths.PIPELINE)
    (project / "src").symlink_to(root / "src")
    run_stage("configure")
    site = project / "site"
    site.mkdir()
    (site / "sitecustomize.py").write_text(BLOCKER)
    monkeypatch.setenv("PYTHONPATH", os.pathsep.join(map(str, (site, root / "src", root))))
    monkeypatch.setenv("PATH", "")  # no git either
    return project


def test_a_run_in_pieces_ends_where_one_in_one_piece_does_and_comes_back(
    tiny: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    faces = ["data.train_count=16", "data.val_count=8", "data.test_count=4"]
    with pytest.raises(Unfinished, match="during prepare"):
        run_offline(["prepare"], 1.0, paths.CONFIG, [*faces, "data.train_count=100000"])
    assert load_run().steps["prepare"].status == "unfinished"
    assert not paths.FACES.exists()

    run_offline(["prepare"], 120.0, paths.CONFIG, faces)
    done = load_run().steps["prepare"]
    assert (done.status, done.sections["data"]["train_count"]) == ("finished", 16)
    assert json.loads((paths.FACES / "manifest.json").read_text())["splits"]["val"]["count"] == 8
    log, written = log_path("prepare"), (paths.FACES / "manifest.json").stat().st_mtime_ns

    run_offline(["prepare"], 120.0, paths.CONFIG, ["data.train_count=16"])
    assert (paths.FACES / "manifest.json").stat().st_mtime_ns == written, "it is up to date"
    with pytest.raises(LeanFaceError, match=r"(?s)prune failed: ArtifactError: .*teacher.*prune\.log"):
        run_offline(["prune"], 120.0, paths.CONFIG)
    assert log.is_file()


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_a_signal_ends_the_stage_too(tiny: Path, number: signal.Signals) -> None:
    command = [sys.executable, "-m", "tools.gpu_box", "run", "--stages", "prepare"]
    command += ["-S", "data.train_count=100000"]
    with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True) as process:
        stages: list[psutil.Process] = []
        while not (stages and stages[0].cpu_times().user > 0.2):
            assert process.poll() is None
            time.sleep(0.02)
            stages = psutil.Process(process.pid).children()
        process.send_signal(number)
        output, _ = process.communicate(timeout=60)
    assert process.returncode == 130
    assert output.endswith("\nstopped.\n")
    assert not any(stage.is_running() for stage in stages)


@pytest.mark.parametrize("change", ["prune.ratoi=0.3", "prune.ratio", "nothing.at.all=1", "prune.ratio=1.5"])
def test_a_change_that_changes_nothing_is_refused(tiny: Path, change: str) -> None:
    before = paths.CONFIG.read_text()
    with pytest.raises(ConfigError, match=r"prune\.ratio"):
        resolve(paths.CONFIG, [change])
    assert paths.CONFIG.read_text() == before


def test_every_stage_that_a_gpu_machine_runs_imports_without_what_it_lacks(tiny: Path) -> None:
    names = sorted({step.stage for step in read_steps().values()})
    assert "configure" not in names
    assert "distill" in names
    script = f"import importlib\nfor name in {names}: importlib.import_module(f'leanface.stages.{{name}}')"
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    done = subprocess.run([sys.executable, "-c", "import dvc"], capture_output=True, text=True, check=False)
    assert "No module named 'dvc'" in done.stderr, "or the test shows nothing"


def test_steps_are_those_of_the_pipeline_in_its_order(tiny: Path) -> None:
    steps = read_steps()
    titles = [step.title for step in choose(steps, ["export", "prune", "evaluate@quantized_int8"])]
    assert titles == ["prune", *(f"export@{name}" for name in catalog.VARIANTS), "evaluate@quantized_int8"]
    assert steps["prune"].sections == ("data", "prune", "seed", "task")
    assert paths.DISTILLED in steps["quantize"].inputs
    assert steps["export@distilled_fp16"].inputs[-2:] == (paths.DISTILLED, paths.PREPARED)
    with pytest.raises(ConfigError, match="unknown stages prunne"):
        choose(steps, ["prunne"])


def test_ids_are_gits_own(root: Path, tmp_path: Path) -> None:
    subprocess.run(["git", "init", "-q", str(tmp_path)], check=True)
    shutil.copytree(root / "src/leanface/pruning", tmp_path / "src/leanface/pruning")
    shutil.copy(root / "src/leanface/bundle.py", tmp_path / "src/leanface")
    git = ["git", "-C", str(tmp_path), "-c", "core.excludesFile=", "-c", "core.fileMode=false"]
    (tmp_path / ".gitignore").write_text("__pycache__/\n")
    subprocess.run([*git, "add", "src"], check=True)
    tree = subprocess.run([*git, "write-tree"], check=True, capture_output=True, text=True).stdout.strip()
    for path in ("src/leanface/bundle.py", "src/leanface/pruning"):
        name = subprocess.run([*git, "rev-parse", f"{tree}:{path}"], check=True, capture_output=True, text=True)
        assert object_id(tmp_path / path) == name.stdout.strip()
    assert object_id(tmp_path / "nothing") is None


def test_rounded_weights_come_back_bit_for_bit_at_half_the_size(small_network, tmp_path: Path) -> None:
    folder = tmp_path / "bundle"
    bundle.save_bundle(small_network, bundle.new_spec(small_network, 64), folder)
    before = bundle.load_network(folder)[0].state_dict()
    round_bundle(folder)
    rounded = (folder / bundle.WEIGHTS).read_bytes()
    after = bundle.load_network(folder)[0].state_dict()
    for name, tensor in before.items():
        exact = tensor.numel() <= max(tensor.shape, default=1)
        assert torch.equal(after[name], tensor) == exact, name
        torch.testing.assert_close(after[name], tensor, rtol=2**-11, atol=2**-25)
    small = shrink(rounded)
    assert len(small) < 0.52 * len(rounded)
    assert expand(small) == rounded


def test_a_network_is_the_same_one_rounded_or_saved_by_other_versions(small_network, tmp_path: Path) -> None:
    folder = tmp_path / "bundle"
    bundle.save_bundle(small_network, bundle.new_spec(small_network, 64), folder)
    before, weights = object_id(folder), (folder / bundle.WEIGHTS).read_bytes()
    round_bundle(folder)
    spec = json.loads((folder / bundle.SPEC).read_text())
    (folder / bundle.SPEC).write_text(json.dumps(spec | {"versions": {"torch": "2.11.0"}}))
    assert (folder / bundle.WEIGHTS).read_bytes() != weights
    assert object_id(folder) == before
    (folder / bundle.SPEC).write_text(json.dumps(spec | {"provenance": {"seed": 1}}))
    assert object_id(folder) != before
    with torch.no_grad():
        next(small_network.parameters()).mul_(1.01)
    bundle.save_bundle(small_network, bundle.new_spec(small_network, 64), folder)
    assert object_id(folder) != before


def test_a_damaged_network_has_an_id_of_its_own(small_network, tmp_path: Path) -> None:
    folder = tmp_path / "bundle"
    bundle.save_bundle(small_network, bundle.new_spec(small_network, 64), folder)
    weights, spec = (folder / bundle.WEIGHTS).read_bytes(), (folder / bundle.SPEC).read_text()
    ids = [object_id(folder)]
    for length in (len(weights) - 4, len(weights) // 2 + 1, 100, 0):
        (folder / bundle.WEIGHTS).write_bytes(weights[:length])
        ids.append(object_id(folder))
    (folder / bundle.WEIGHTS).write_bytes(weights)
    (folder / bundle.SPEC).write_text(spec[:-10])
    ids.append(object_id(folder))
    (folder / bundle.SPEC).unlink()
    ids.append(object_id(folder))
    assert None not in ids
    assert len(set(ids)) == len(ids)


def test_ranges_of_quantizers_keep_their_precision_and_huge_weights_are_refused() -> None:
    amax = torch.full((8, 1, 1, 1), 0.1)
    weights = safetensors.torch.save({"amax": amax, "weight": torch.full((8, 4, 1, 1), 0.1)})
    back = safetensors.torch.load(expand(shrink(weights)))
    assert torch.equal(back["amax"], amax)
    assert back["weight"][0, 0, 0, 0] == torch.tensor(0.1).half().float()
    with pytest.raises(ArtifactError, match="weight has weights that are not finite"):
        shrink(safetensors.torch.save({"weight": torch.full((8, 4, 1, 1), 1e6)}))


PIPELINE = """
vars: [{bundles: {}}]
stages:
  prune:
    cmd: "false"
    params: [{reports/config.yaml: [prune]}]
    deps: [src/code.py, data/prepared/faces]
    outs: [{models/pruned: {persist: true}}, reports/prune]
  benchmark:
    cmd: "false"
    deps: [models/pruned]
    metrics: [{reports/benchmark.json: {cache: false}}]
  teacher:
    cmd: "false"
    deps: [data/prepared/faces]
    outs: [models/teacher, reports/teacher]
"""


@pytest.fixture
def there(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, small_network) -> Path:
    """A finished run of a small pipeline, packed in three or more parts; the working directory is another tree."""
    for folder in ("here", "there"):
        for path, text in {
            "dvc.yaml": PIPELINE,
            "src/code.py": "x = 1\n",
            "data/prepared/faces/manifest.json": json.dumps({"seed": 0, "versions": {"numpy": folder}}),
            "reports/config.yaml": "prune: {ratio: 0.5}\n",
        }.items():
            (tmp_path / folder / path).parent.mkdir(parents=True, exist_ok=True)
            (tmp_path / folder / path).write_text(text)
    monkeypatch.chdir(tmp_path / "there")
    bundle.save_bundle(small_network, bundle.new_spec(small_network, 64), paths.PRUNED)
    round_bundle(paths.PRUNED)
    paths.PRUNE_REPORT.mkdir()
    (paths.PRUNE_REPORT / "metrics.json").write_text("{}\n")
    bundle.save_bundle(small_network, bundle.new_spec(small_network, 64), paths.TEACHER)
    paths.TEACHER_REPORT.mkdir()
    (paths.TEACHER_REPORT / "metrics.json").write_text("{}\n")
    paths.BENCHMARK.write_text('{"rows": []}\n')
    run = Run(device={"gpus": [{"name": "Great GPU"}], "cpu": "some"})
    for step in read_steps().values():
        done = begin(step, yaml.safe_load(paths.CONFIG.read_text()))
        done.status, done.outputs = "finished", ids_of(step.outputs)
        run.steps[step.title] = done
    save_run(run)
    packed = pack(tmp_path / "parts", ["prune", "benchmark"], 2**20, reports=["teacher"])
    assert len(packed.parts) >= 3
    assert packed.size_bytes == sum(part.stat().st_size for part in packed.parts)
    monkeypatch.chdir(tmp_path / "here")
    return tmp_path / "parts"


def test_without_a_run_there_is_nothing_to_pack(project: Path) -> None:
    with pytest.raises(ArtifactError, match=r"run\.json is missing: run `python -m tools.gpu_box run`"):
        pack(project / "parts", ["prune"], 2**20)


def test_another_machine_goes_on_from_what_was_packed(there: Path) -> None:
    unpack(there)
    steps = load_run().steps
    assert steps["prune"].outputs == ids_of((paths.PRUNED, paths.PRUNE_REPORT))
    bundle.load_network(paths.PRUNED)
    assert steps["benchmark"].outputs == ids_of((paths.BENCHMARK,))
    assert steps["teacher"].outputs == ids_of((paths.TEACHER_REPORT,)), "its report alone was packed"
    assert not paths.TEACHER.exists()


def test_reports_alone_can_be_packed(there: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    here = Path.cwd()
    monkeypatch.chdir(there.parent / "there")
    assert len(pack(there, ["prune"], 2**20, weights=False).parts) == 1
    monkeypatch.chdir(here)
    unpack(there)
    assert (paths.PRUNE_REPORT / "metrics.json").is_file()
    assert not paths.PRUNED.exists()


def test_lost_and_damaged_parts_are_told_and_put_nothing_back(there: Path) -> None:
    first, *_, last = sorted(there.iterdir())
    whole = last.read_bytes()
    last.write_bytes(whole[: len(whole) // 2])
    with pytest.raises(ArtifactError, match="is damaged"):
        unpack(there)
    first.unlink()
    with pytest.raises(ArtifactError, match=f"lacks {first.name}"):
        unpack(there)
    assert not paths.PRUNED.exists()
