"""Trainings: what they leave, in pieces and after a kill, on several devices."""

import copy
import re
import subprocess
import sys
import time
from collections.abc import Mapping
from pathlib import Path

import pytest
import torch
from torch import nn

from leanface.config import Machine, Optimizer
from leanface.errors import LeanFaceError, Unfinished
from leanface.face.morphable_model import MorphableModel
from leanface.metrics.outputs import mean_errors, predict
from leanface.networks.resnet import FaceReconstructionNet
from leanface.synthesis.datamodule import FaceDataModule, Stream
from leanface.synthesis.dataset import FaceDataset
from leanface.synthesis.synthesis import sample_coefficients
from leanface.task import Batch
from leanface.tasks.face.losses import PhotometricLoss, SupervisedCriterion
from leanface.tasks.face.task import FaceTask
from leanface.training.checkpoint import Checkpoint
from leanface.training.fit import FitResult, Session, fit
from tests.settings import DATA, MACHINE, OPTIMIZER


@pytest.fixture
def faces(few_faces: Path) -> Path:
    return few_faces


def some(model: MorphableModel, count: int = 64) -> torch.Tensor:
    return sample_coefficients(model, count, torch.Generator().manual_seed(5))


def run(
    network: nn.Module, faces: Path, model: MorphableModel, report: Path, machine: Machine = MACHINE, **options: object
) -> FitResult:
    data = FaceDataModule(faces, OPTIMIZER.batch_size, 0)
    criterion = SupervisedCriterion(model, 1.0)
    frozen = bool(options.pop("freeze_batch_norm", False))
    session = Session(machine, 0, report, **options)  # type: ignore[arg-type]
    return fit(network, criterion, data, OPTIMIZER, session, task=FaceTask(model), freeze_batch_norm=frozen)


def test_fit_trains_in_place_and_reports(
    small_network: FaceReconstructionNet, faces: Path, model: MorphableModel, tmp_path: Path
) -> None:
    before = small_network.backbone.conv1.weight.detach().clone()
    seen: list[int] = []
    written: list[int] = []
    drawn: set[bytes] = set()

    def log(metrics: Mapping[str, float], step: int) -> None:
        seen.append(step)
        written.append(len((tmp_path / "history.csv").read_text().splitlines()) - 1)
        drawn.add((tmp_path / "curves.png").read_bytes())

    result = run(small_network, faces, model, tmp_path, log=log)
    assert not small_network.training
    assert not torch.equal(small_network.backbone.conv1.weight, before)
    assert seen == [0, 1, 2, 3, 4] == [int(row["step"]) for row in result.history]
    assert written == [1, 2, 3, 4, 5], "`dvc plots` can follow a training"
    assert len(drawn) == 5
    assert {"train/loss", "val/identity_mm", "learning_rate"} <= set(result.history[-1])
    assert (tmp_path / "history.csv").read_text().startswith("step,")
    assert all(picture.startswith(b"\x89PNG") for picture in drawn)


def test_the_best_weights_are_kept_not_the_last(
    small_network: FaceReconstructionNet, faces: Path, model: MorphableModel, tmp_path: Path
) -> None:
    class Unlearning(SupervisedCriterion):
        def forward(self, network: nn.Module, batch: Batch) -> dict[str, torch.Tensor]:
            return {"loss": -super().forward(network, batch)["loss"]}

    data = FaceDataModule(faces, OPTIMIZER.batch_size, 0)
    session = Session(MACHINE, seed=0, report=tmp_path)
    result = fit(small_network, Unlearning(model, 0.0), data, OPTIMIZER, session, task=FaceTask(model))
    curve = [row["val/posed_mm"] for row in result.history]
    assert curve[0] < curve[-1]
    assert result.history[curve.index(min(curve))]["step"] == result.best_step
    val = FaceDataset(faces / "val")
    ours = mean_errors(FaceTask(model), predict(small_network, val), torch.from_numpy(val.coefficients))
    assert ours["posed_mm"] == pytest.approx(min(curve), rel=1e-3)


def test_frozen_batch_norm_keeps_its_statistics(
    small_network: FaceReconstructionNet, faces: Path, model: MorphableModel, tmp_path: Path
) -> None:
    before = small_network.backbone.bn1.running_mean.clone()  # type: ignore[union-attr]
    run(small_network, faces, model, tmp_path, freeze_batch_norm=True)
    torch.testing.assert_close(small_network.backbone.bn1.running_mean, before)
    run(small_network, faces, model, tmp_path)
    assert not torch.allclose(small_network.backbone.bn1.running_mean, before)  # type: ignore[arg-type]


# Streamed batches number themselves; Lightning cannot know that data from disk starts its epoch anew.
@pytest.mark.filterwarnings("ignore:You're resuming from a checkpoint that ended before the epoch")
def test_a_training_in_pieces_ends_where_an_unbroken_one_does(
    small_network: FaceReconstructionNet,
    faces: Path,
    model: MorphableModel,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(Checkpoint, "EVERY", 1)
    unbroken, checkpoint = copy.deepcopy(small_network), tmp_path / "state.ckpt"
    run(unbroken, faces, model, tmp_path / "unbroken")
    for done in (1, 2, 3):
        with pytest.raises(Unfinished, match=f"{done} of 4 steps"):
            run(copy.deepcopy(small_network), faces, model, tmp_path, checkpoint=checkpoint, piece_seconds=1e-6)
        assert len(list(tmp_path.glob("state-*.ckpt"))) == 1
    network = copy.deepcopy(small_network)
    result = run(network, faces, model, tmp_path, checkpoint=checkpoint, piece_seconds=1e-6)
    assert [row["step"] for row in result.history] == [0, 1, 2, 3, 4]
    assert not list(tmp_path.glob("state-*"))
    assert int(network.backbone.bn1.num_batches_tracked) == int(unbroken.backbone.bn1.num_batches_tracked)  # type: ignore[arg-type]


def test_a_training_that_was_cut_off_ends_where_an_unbroken_one_does(
    small_network: FaceReconstructionNet, model: MorphableModel, faces: Path, tmp_path: Path
) -> None:
    """Streamed, so that both see the same faces in the same order."""

    def train(network: FaceReconstructionNet, cut_off_at: int | None, checkpoint: Path | None) -> None:
        def log(_: object, step: int) -> None:
            if step == cut_off_at:
                raise KeyboardInterrupt("like a kill: after this validation's state is saved, or before")

        stream = Stream(DATA, (64,), torch.device("cpu"))
        fit(
            network,
            SupervisedCriterion(model, 1.0),
            FaceDataModule(faces, OPTIMIZER.batch_size, 0, stream),
            OPTIMIZER,
            Session(MACHINE, seed=0, report=tmp_path, log=log, checkpoint=checkpoint),
            task=FaceTask(model),
        )

    unbroken, resumed, checkpoint = copy.deepcopy(small_network), copy.deepcopy(small_network), tmp_path / "state.ckpt"
    train(unbroken, None, None)
    with pytest.raises(KeyboardInterrupt):
        train(copy.deepcopy(small_network), 3, checkpoint)
    assert list(tmp_path.glob("state-*.ckpt")), "nothing to resume from"
    train(resumed, None, checkpoint)
    for name, weights in unbroken.state_dict().items():
        torch.testing.assert_close(resumed.state_dict()[name], weights, msg=lambda text, name=name: f"{name}: {text}")


SCRIPT = """
import sys
from pathlib import Path
import torch
from leanface.config import Machine, Optimizer
from leanface.synthesis.datamodule import FaceDataModule
from leanface.face.morphable_model import load_morphable_model
from leanface.networks.resnet import build_network, scaled_widths
from leanface.errors import Unfinished
from leanface.training.checkpoint import Checkpoint
from leanface.tasks.face.losses import SupervisedCriterion
from leanface.training.fit import Session, fit
from leanface.tasks.face.task import FaceTask
torch.manual_seed(0)
model, folder = load_morphable_model(), Path(sys.argv[1])
optimizer, machine = (part.model_validate_json(text) for part, text in zip((Optimizer, Machine), sys.argv[2:]))
data = FaceDataModule(folder / "faces", optimizer.batch_size, 0)
session = Session(
    machine, seed=0, report=folder / "report", checkpoint=folder / "state.ckpt",
    log=lambda metrics, step: print("validated", step, metrics.get("train/loss"), flush=True),
)
network, criterion = build_network(scaled_widths(0.1)), SupervisedCriterion(model, 1.0)
result = fit(network, criterion, data, optimizer, session, task=FaceTask(model))
print("steps", [int(row["step"]) for row in result.history], flush=True)
"""


def start(folder: Path, faces: Path, optimizer: Optimizer, machine: Machine) -> subprocess.Popen[str]:
    """Train a small network in a process of its own, in `folder`."""
    folder.mkdir(exist_ok=True)
    (folder / "script.py").write_text(SCRIPT)
    if not (folder / "faces").exists():
        (folder / "faces").symlink_to(faces)
    command = [sys.executable, "script.py", ".", optimizer.model_dump_json(), machine.model_dump_json()]
    return subprocess.Popen(command, cwd=folder, text=True, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL)


def test_a_killed_training_goes_on_from_its_last_validation(faces: Path, tmp_path: Path) -> None:
    optimizer = OPTIMIZER.model_copy(update={"steps": 16})
    with start(tmp_path, faces, optimizer, MACHINE) as first:
        assert first.stdout is not None
        while not list(tmp_path.glob("state-*.ckpt")):
            assert first.poll() is None
            time.sleep(0.01)
        first.kill()
    second, _ = start(tmp_path, faces, optimizer, MACHINE).communicate()
    validated = [int(step) for step in re.findall(r"validated (\d+)", second)]
    assert 2 < validated[0] < 16, "began anew"
    assert f"steps {list(range(0, 17, 2))}" in second, "the curve lost what came before"
    assert not list(tmp_path.glob("state-*"))


def test_another_training_does_not_take_the_state_for_its_own(
    small_network: FaceReconstructionNet, faces: Path, model: MorphableModel, tmp_path: Path
) -> None:
    state, seen = tmp_path / "state.ckpt", list[int]()

    def interrupt(metrics: object, step: int) -> None:
        if step == 2:
            raise RuntimeError("enough")

    with pytest.raises(RuntimeError, match="enough"):
        run(copy.deepcopy(small_network), faces, model, tmp_path, checkpoint=state, run_key=["one"], log=interrupt)
    assert list(tmp_path.glob("state-*.ckpt"))
    log = lambda metrics, step: seen.append(step)  # noqa: E731
    run(small_network, faces, model, tmp_path, checkpoint=state, run_key=["another"], log=log)
    assert seen == [0, 1, 2, 3, 4]


def test_two_devices_share_a_step(faces: Path, tmp_path: Path) -> None:
    machine = MACHINE.model_copy(update={"devices": 2, "threads": 1})
    process = start(tmp_path, faces, OPTIMIZER, machine)
    output, _ = process.communicate()
    assert process.returncode == 0
    assert output.count("steps [0, 1, 2, 3, 4]") == 1, "only the first device goes on after the training"


def test_compiled_training_is_the_same_training(
    small_network: FaceReconstructionNet, faces: Path, model: MorphableModel, tmp_path: Path
) -> None:
    data, networks = FaceDataModule(faces, OPTIMIZER.batch_size, 0), [small_network, copy.deepcopy(small_network)]
    for network, compiled in zip(networks, (False, True), strict=True):
        machine = MACHINE.model_copy(update={"compile": compiled})
        criterion = SupervisedCriterion(model, 1.0)
        with torch.compiler.set_stance("force_eager"):  # the compiler itself would take a minute
            session = Session(machine, seed=0, report=tmp_path)
            fit(network, criterion, data, OPTIMIZER, session, task=FaceTask(model))
    torch.testing.assert_close(networks[0].state_dict(), networks[1].state_dict())


def test_a_loss_that_is_not_finite_names_the_knob(
    small_network: FaceReconstructionNet, faces: Path, model: MorphableModel, tmp_path: Path
) -> None:
    def broken(network: nn.Module, batch: Batch) -> dict[str, torch.Tensor]:
        return {"loss": network(batch.images).sum() * float("nan")}

    data = FaceDataModule(faces, 4, 0)
    with pytest.raises(LeanFaceError, match="learning_rate"):
        fit(small_network, broken, data, OPTIMIZER, Session(MACHINE, 0, tmp_path), task=FaceTask(model))


def test_reduced_precision_stops_at_the_network(
    small_network: FaceReconstructionNet, model: MorphableModel, faces: Path, tmp_path: Path
) -> None:
    """bf16 resolves 0.4 mm of a head's size: neither colors nor validation errors may be computed in it."""
    loss, truth = PhotometricLoss(model), some(model, 4)
    predicted = truth + 0.05
    with torch.autocast("cpu", torch.bfloat16):
        reduced = loss(predicted, truth)
    assert torch.equal(reduced, loss(predicted, truth))
    machine = MACHINE.model_copy(update={"precision": "bf16-mixed"})
    val, start = FaceDataset(faces / "val"), copy.deepcopy(small_network).eval()
    exact = mean_errors(FaceTask(model), predict(start, val), torch.from_numpy(val.coefficients))
    result = run(small_network, faces, model, tmp_path, machine)
    assert result.history[0]["val/posed_mm"] == pytest.approx(exact["posed_mm"], rel=2e-3)
