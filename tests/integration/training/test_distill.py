"""Distillation as a whole: from disk, streamed, and on photos without labels."""

import copy
import shutil
from pathlib import Path

import pytest
import torch
import yaml

from leanface import bundle, paths
from leanface.config import Distill, Machine, TaskChoice
from leanface.distillation.distill import distill
from leanface.face.morphable_model import MorphableModel
from leanface.metrics.outputs import predict
from leanface.networks.resnet import FaceReconstructionNet
from leanface.stages import distill as stage
from leanface.synthesis.dataset import COEFFICIENTS, LANDMARKS, FaceDataset
from leanface.synthesis.prepare import prepare_faces
from leanface.tasks.face.task import FaceTask
from leanface.training.fit import FitResult, Session
from tests.settings import DATA, FEW, MACHINE, OPTIMIZER


@pytest.fixture
def faces(project: Path, model: MorphableModel) -> Path:
    """A project with a few faces."""
    paths.MORPHABLE_MODEL.parent.mkdir(parents=True)
    paths.MORPHABLE_MODEL.symlink_to(paths.PACKAGED_MORPHABLE_MODEL)
    prepare_faces(model, FEW, 0, paths.FACES)
    return paths.FACES


def train(
    network: FaceReconstructionNet,
    model: MorphableModel,
    val: FaceDataset,
    machine: Machine = MACHINE,
    **changes: object,
) -> FitResult:
    """Distil a copy of the network from the network; the copy starts off the mark."""
    student = copy.deepcopy(network)
    with torch.no_grad():
        student.backbone.bn1.weight.mul_(1.1)  # type: ignore[union-attr]
    terms = yaml.safe_load((paths.CONF / "distill/terms.yaml").read_text())
    settings = Distill.model_validate(terms | {"optimizer": OPTIMIZER} | changes)
    session = Session(machine, seed=0, report=Path("reports/distill"))
    return distill(student, network, FaceTask(model, DATA), settings, session, val=val.labeled(predict(network, val)))


def test_a_compiled_original_teaches_the_same(
    small_network: FaceReconstructionNet, model: MorphableModel, faces: Path
) -> None:
    val = FaceDataset(faces / "val")
    compiled = MACHINE.model_copy(update={"compile": True})
    with torch.compiler.set_stance("force_eager"):  # the compiler itself would take a minute
        eager, same = (train(small_network, model, val, machine) for machine in (MACHINE, compiled))
    assert [row["val/posed_mm"] for row in eager.history] == pytest.approx(
        [row["val/posed_mm"] for row in same.history]
    )


def test_streamed_faces_need_no_stored_ones(
    small_network: FaceReconstructionNet, model: MorphableModel, faces: Path
) -> None:
    shutil.rmtree(faces / "train")
    result = train(small_network, model, FaceDataset(faces / "val"), streamed=True, image_sizes=(64, 80))
    assert [row["step"] for row in result.history] == [0, 1, 2, 3, 4]
    assert {"train/labels", "train/vertices"} <= set(result.history[-1])


def test_a_student_can_be_trained_on(small_network: FaceReconstructionNet, faces: Path) -> None:
    student = copy.deepcopy(small_network)
    with torch.no_grad():
        student.backbone.bn1.weight.mul_(1.01)  # type: ignore[union-attr]
    earlier = Path("earlier")
    bundle.save_bundle(small_network, bundle.new_spec(small_network, 64), paths.TEACHER)
    bundle.save_bundle(student, bundle.new_spec(student, 96), earlier, half=True)
    terms = yaml.safe_load((paths.CONF / "distill/terms.yaml").read_text())
    settings = Distill.model_validate(terms | {"optimizer": OPTIMIZER, "start_from": str(earlier)})
    # Stage prune left nothing: it is not asked.
    task = TaskChoice(name="face")
    metrics = stage.run(task=task, distill=settings, data=DATA, machine=MACHINE, seed=0, log=lambda row, step: None)
    spec = bundle.load_spec(paths.DISTILLED)
    assert spec.provenance["parent"] == bundle.digest(earlier)
    assert spec.input.size == DATA.image_size
    assert metrics["distilled/teacher_vertex_mm"] < 0.01  # never worse than its start


def test_photos_have_no_labels_and_need_none(
    small_network: FaceReconstructionNet, model: MorphableModel, faces: Path
) -> None:
    for split in ("train", "val"):
        (faces / split / COEFFICIENTS).unlink()
        (faces / split / LANDMARKS).unlink()
    histories = [train(small_network, model, FaceDataset(faces / "val"), alpha=alpha).history for alpha in (0.0, 0.6)]
    assert all("train/labels" not in row for row in histories[0])
    for without, ignored in zip(*(rows[1:] for rows in histories), strict=True):  # alpha acts as 0
        assert ignored["train/loss"] == pytest.approx(without["train/loss"], rel=1e-4)
        assert ignored["val/posed_mm"] == pytest.approx(without["val/posed_mm"], rel=1e-4)


def test_learning_from_the_original_comes_closer_to_it(
    small_network: FaceReconstructionNet, model: MorphableModel, faces: Path
) -> None:
    val = FaceDataset(faces / "val")
    other = copy.copy(val)
    other.coefficients = predict(small_network, val).numpy()  # validated against the original
    history = train(
        small_network,
        model,
        other,
        alpha=0.0,
        freeze_batch_norm=True,
        optimizer=OPTIMIZER.model_copy(update={"steps": 16, "learning_rate": 3e-4, "ema_decay": 0.0}),
    ).history
    # It starts as the original itself; the first steps, with AdamW's moments still unknown, shake it off.
    assert history[-1]["val/posed_mm"] < history[1]["val/posed_mm"]
