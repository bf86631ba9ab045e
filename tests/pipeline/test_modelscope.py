"""The chain at scale `tiny` with another original, another morphable model, and photos without labels."""

import importlib
import inspect
import json
import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest
import torch
import yaml

from leanface import paths
from leanface.bundle import load_network
from leanface.config import load_config
from leanface.face.morphable_model import load_morphable_model
from leanface.modelscope_hub import BASEL_MODEL, CHECKPOINT
from leanface.networks.resnet import FaceReconstructionNet
from leanface.runner import stage_sections
from leanface.stages import configure
from leanface.synthesis.dataset import FaceDataset

if TYPE_CHECKING:
    from tests.conftest import Front

VARIANTS = ("teacher_fp32", "quantized_int8")


def edit(path: Path, old: str, new: str) -> None:
    text = path.read_text()
    assert text.count(old) == 1
    path.write_text(text.replace(old, new))


def run_stage(name: str, **arguments: Any) -> dict[str, float]:
    """As `leanface stage` does, without MLflow."""
    run, config = importlib.import_module(f"leanface.stages.{name}").run, load_config(paths.CONFIG)
    if "log" in inspect.signature(run).parameters:
        arguments["log"] = lambda metrics, step: None
    return run(**{section: getattr(config, section) for section in stage_sections(name)}, **arguments)


@pytest.fixture(scope="module")
def snapshot(front: "Front", tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A snapshot's two files; the weights are random, the heads' so small that every answer is near the mean face."""
    folder = tmp_path_factory.mktemp("snapshot")
    torch.manual_seed(0)
    network = FaceReconstructionNet()
    with torch.no_grad():
        for weight in network.final_layers.parameters():
            weight *= 0.001
    torch.save({"net_recon": network.state_dict(), "alpha": torch.ones(1)}, folder / CHECKPOINT)
    (folder / BASEL_MODEL).parent.mkdir()
    (folder / BASEL_MODEL).symlink_to(front.path)
    return folder


@pytest.fixture(scope="module")
def chain(
    snapshot: Path, photo_folder: Path, root: Path, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[dict[str, dict[str, float]]]:
    """A project in which every stage up to evaluate has run; what each returned."""
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(tmp_path_factory.mktemp("project"))
        shutil.copytree(root / "conf", "conf")
        edit(Path("conf/teacher/modelscope.yaml"), "path: null", f"path: {snapshot}")
        edit(Path("conf/teacher/modelscope.yaml"), "morphable_model: modelscope", f"morphable_model: {snapshot}")
        edit(Path("conf/data/folder.yaml"), "path: photos", f"path: {photo_folder}")
        params = yaml.safe_load((root / "params.yaml").read_text())
        paths.PARAMS.write_text(yaml.safe_dump(params | {"scale": "tiny", "teacher": "modelscope"}))
        configure.run()
        done = {
            name: run_stage(name)
            for name in ("prepare", "teacher", "analyze", "search", "prune", "distill", "quantize")
        }
        for variant in VARIANTS:
            done |= {f"{name}@{variant}": run_stage(name, variant=variant) for name in ("export", "evaluate")}
        yield done


def test_the_basel_model_and_the_photos_are_the_data(
    chain: dict[str, dict[str, float]], front: "Front", snapshot: Path
) -> None:
    assert load_morphable_model(paths.MORPHABLE_MODEL).vertex_count == len(front.vertices)
    assert [len(FaceDataset(paths.FACES / split)) for split in paths.SPLITS] == [10, 1, 1]
    assert FaceDataset(paths.FACES / "train").coefficients is None
    assert json.loads((paths.FACES / "manifest.json").read_text())["source"] == "folder"


def test_the_original_is_the_snapshots(chain: dict[str, dict[str, float]], snapshot: Path) -> None:
    network, spec = load_network(paths.TEACHER)
    assert spec.provenance["source"] == "modelscope"
    state = torch.load(snapshot / CHECKPOINT, weights_only=True)["net_recon"]
    assert torch.equal(network.get_parameter("backbone.conv1.weight"), state["backbone.conv1.weight"])


def test_it_is_distilled_without_labels_and_measured_against_the_original_alone(
    chain: dict[str, dict[str, float]],
) -> None:
    for stage in ("prune", "distill", "quantize"):
        measured = [name for name in chain[stage] if name.endswith("vertex_mm")]
        assert measured
        assert all("/teacher_" in name for name in measured), measured
    history = (paths.DISTILL_REPORT / "history.csv").read_text().splitlines()
    assert "val/vertex_mm" in history[0]
    assert "train/labels" not in history[0]
    assert len(history) > 1


def test_the_proof_has_no_ground_truth(chain: dict[str, dict[str, float]]) -> None:
    evaluations = [json.loads((paths.evaluation_dir(name) / "metrics.json").read_text()) for name in VARIANTS]
    for evaluation in evaluations:
        assert not [name for name in evaluation["measures"] if name.startswith("truth_")]
        assert {"ssim", "mse", "teacher_vertex_mm"} <= set(evaluation["measures"])
        assert "ssim" in evaluation["constant"]
        assert evaluation["measures"]["ssim_face"] is not None  # the face is in the picture
    assert evaluations[0]["measures"]["ssim"]["mean"] == pytest.approx(1, abs=1e-3)
    assert (paths.evaluation_dir(VARIANTS[1]) / "faces.png").is_file()
