"""Training: losses, averaging, Lightning, pieces."""

import copy
import re
import subprocess
import sys
import time
from pathlib import Path

import pytest
import torch
from torch import nn

from leanface.config import Machine, Optimizer
from leanface.errors import LeanFaceError
from leanface.face.coefficients import ALBEDO, IDENTITY
from leanface.face.morphable_model import MorphableModel
from leanface.metrics.geometry import face_bases, geometry_errors
from leanface.metrics.outputs import mean_errors, predict
from leanface.networks.resnet import FaceReconstructionNet
from leanface.synthesis.datamodule import FaceDataModule, Stream
from leanface.synthesis.dataset import FaceDataset
from leanface.synthesis.prepare import prepare_faces
from leanface.synthesis.synthesis import population, sample_coefficients
from leanface.task import Batch
from leanface.tasks.face.losses import CoefficientLoss, PhotometricLoss, SupervisedCriterion
from leanface.tasks.face.task import FaceTask
from leanface.training.average import WeightAverage
from leanface.training.checkpoint import Checkpoint, Unfinished
from leanface.training.fit import FitResult, fit, resolve_precision
from leanface.training.module import parameter_groups
from tests.unit.synthesis.test_prepare import DATA

OPTIMIZER = Optimizer(
    steps=4,
    batch_size=4,
    learning_rate=1e-3,
    warmup_fraction=0.25,
    weight_decay=0.01,
    ema_decay=0.9,
    gradient_clip=1.0,
)
MACHINE = Machine(accelerator="cpu", devices=1, precision="32-true", threads=2, compile=False)


@pytest.fixture(scope="module")
def faces(model: MorphableModel, tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("training") / "faces"
    prepare_faces(model, DATA.model_copy(update={"train_count": 8, "val_count": 4, "test_count": 4}), 0, folder)
    return folder


def some(model: MorphableModel, count: int = 64) -> torch.Tensor:
    return sample_coefficients(model, count, torch.Generator().manual_seed(5))


def test_no_error_costs_nothing_and_the_mean_face_costs_one_per_group(model: MorphableModel) -> None:
    loss, truth = CoefficientLoss(model), some(model, 4000)
    assert float(loss(truth, truth)["loss"]) == 0.0
    mean, _ = population(model)
    terms = loss(mean.expand_as(truth), truth)
    for name in ("identity", "expression", "albedo", "angles", "lighting", "translation"):
        assert 0.85 < float(terms[name]) < 1.15, name


def test_the_faces_losses_average_to_the_batchs(model: MorphableModel) -> None:
    truth, other = some(model, 8), some(model, 9)[1:]
    for loss in (CoefficientLoss(model), PhotometricLoss(model)):
        total = loss(other, truth)
        total = total["loss"] if isinstance(total, dict) else total
        torch.testing.assert_close(loss.per_sample(other, truth).mean(), total)


def test_a_coefficient_costs_what_it_moves(model: MorphableModel) -> None:
    """One sigma of the first component moves most, so it must cost most."""
    loss, effect = CoefficientLoss(model), face_bases(model)["identity"].norm(dim=1)
    truth = torch.zeros(1, 257)
    costs = torch.stack([loss(truth + torch.eye(257)[index], truth)["identity"] for index in range(80)])
    torch.testing.assert_close(costs / costs.sum(), effect.square() / effect.square().sum())


def test_errors_are_zero_at_identity_and_mm_match_the_vertices(model: MorphableModel) -> None:
    truth = some(model, 3)
    assert all(float(values.max()) < 0.03 for values in geometry_errors(model, truth, truth).values())
    off = truth.clone()
    off[:, IDENTITY] += 0.3 * torch.randn(3, 80)
    off[:, ALBEDO] += 0.3 * torch.randn(3, 80)
    moved = model.vertices(off[:, IDENTITY], torch.zeros(3, 64)) - model.vertices(
        truth[:, IDENTITY], torch.zeros(3, 64)
    )
    expected = 100 * moved[:, model.face_mask].square().sum(-1).mean(1).sqrt()
    torch.testing.assert_close(geometry_errors(model, off, truth)["identity_mm"], expected, atol=1e-3, rtol=1e-3)


def test_rotation_error_is_the_angle_between(model: MorphableModel) -> None:
    truth = torch.zeros(1, 257)
    turned = truth.clone()
    turned[:, 225] = 0.1
    assert float(geometry_errors(model, turned, truth)["rotation_deg"]) == pytest.approx(5.73, abs=0.01)


def test_photometric_loss_sees_albedo_and_light_but_not_shape(model: MorphableModel) -> None:
    loss, truth = PhotometricLoss(model), some(model, 4)
    assert float(loss(truth, truth)) == 0.0
    shape = truth.clone()
    shape[:, :144] += 1.0
    assert float(loss(shape, truth)) == 0.0
    for part in (ALBEDO, slice(227, 254)):
        off = truth.clone()
        off[:, part] += 0.2
        assert float(loss(off, truth)) > 0


def test_average_follows_and_swap_is_its_own_inverse() -> None:
    network = nn.Sequential(nn.Linear(2, 2), nn.BatchNorm1d(2))
    average = WeightAverage(network, decay=0.5)
    start = network[0].weight.detach().clone()
    with torch.no_grad():
        network[0].weight.add_(1.0)
    average.update(network)  # the first decay is 1 / 10
    average.swap(network)
    torch.testing.assert_close(network[0].weight, start + 0.9)
    average.swap(network)
    torch.testing.assert_close(network[0].weight, start + 1.0)


def test_heads_learn_at_the_scale_of_their_outputs() -> None:
    network = FaceReconstructionNet()
    groups = parameter_groups(network, OPTIMIZER, [1.0, 1.0, 1.0, 0.3, 0.1, 0.04, 0.2])
    rates = {id(parameter): group["lr"] for group in groups for parameter in group["params"]}
    assert len(rates) == len(list(network.parameters()))
    assert rates[id(network.final_layers[3].weight)] == pytest.approx(3e-4)
    assert rates[id(network.backbone.conv1.weight)] == pytest.approx(1e-3)
    decays = {id(parameter): group["weight_decay"] for group in groups for parameter in group["params"]}
    assert decays[id(network.backbone.bn1.weight)] == 0.0
    assert decays[id(network.backbone.conv1.weight)] == 0.01


def run(
    network: nn.Module, faces: Path, model: MorphableModel, report: Path, machine: Machine = MACHINE, **options: object
) -> FitResult:
    data = FaceDataModule(faces, OPTIMIZER.batch_size, 0)
    criterion = SupervisedCriterion(model, 1.0)
    return fit(network, criterion, data, OPTIMIZER, machine, task=FaceTask(model), seed=0, report=report, **options)  # type: ignore[arg-type]


def test_fit_trains_in_place_and_reports(
    small_network: FaceReconstructionNet, faces: Path, model: MorphableModel, tmp_path: Path
) -> None:
    before = small_network.backbone.conv1.weight.detach().clone()
    seen: list[int] = []
    result = run(small_network, faces, model, tmp_path, log=lambda metrics, step: seen.append(step))
    assert not small_network.training
    assert not torch.equal(small_network.backbone.conv1.weight, before)
    assert seen == [0, 1, 2, 3, 4] == [int(row["step"]) for row in result.history]
    assert {"train/loss", "val/identity_mm", "learning_rate"} <= set(result.history[-1])
    assert (tmp_path / "history.csv").read_text().startswith("step,")
    assert (tmp_path / "curves.png").read_bytes().startswith(b"\x89PNG")


def test_the_best_weights_are_kept_not_the_last(
    small_network: FaceReconstructionNet, faces: Path, model: MorphableModel, tmp_path: Path
) -> None:
    class Unlearning(SupervisedCriterion):
        def forward(self, network: nn.Module, batch: Batch) -> dict[str, torch.Tensor]:
            return {"loss": -super().forward(network, batch)["loss"]}

    data = FaceDataModule(faces, OPTIMIZER.batch_size, 0)
    result = fit(
        small_network, Unlearning(model, 0.0), data, OPTIMIZER, MACHINE, task=FaceTask(model), seed=0, report=tmp_path
    )
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


def test_only_states_of_trainings_are_removed(tmp_path: Path) -> None:
    states = ["state-0123456789ab.ckpt", "state-0123456789ab.tmp", "state-ba9876543210.ckpt"]
    others = ["state-abc123", "state-notes.txt", "state-0123456789ab.ckpt.bak", "teacher-0123456789ab.ckpt"]
    for name in [*states, *others[1:]]:
        (tmp_path / name).touch()
    (tmp_path / others[0]).mkdir()
    Checkpoint(tmp_path / "state.ckpt", "0123456789ab", None).remove()
    assert {path.name for path in tmp_path.iterdir()} == set(others)


@pytest.mark.parametrize("freeze_batch_norm", [True, False])
def test_a_training_that_was_cut_off_ends_where_an_unbroken_one_does(
    small_network: FaceReconstructionNet, model: MorphableModel, faces: Path, tmp_path: Path, freeze_batch_norm: bool
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
            MACHINE,
            task=FaceTask(model),
            seed=0,
            report=tmp_path,
            freeze_batch_norm=freeze_batch_norm,
            log=log,
            checkpoint=checkpoint,
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
from leanface.training.checkpoint import Checkpoint, Unfinished
from leanface.tasks.face.losses import SupervisedCriterion
from leanface.training.fit import fit
from leanface.tasks.face.task import FaceTask
torch.manual_seed(0)
model, folder = load_morphable_model(), Path(sys.argv[1])
optimizer, machine = (part.model_validate_json(text) for part, text in zip((Optimizer, Machine), sys.argv[2:]))
data = FaceDataModule(folder / "faces", optimizer.batch_size, 0)
result = fit(
    build_network(scaled_widths(0.1)), SupervisedCriterion(model, 1.0), data, optimizer, machine,
    task=FaceTask(model), seed=0, report=folder / "report", checkpoint=folder / "state.ckpt",
    log=lambda metrics, step: print("validated", step, metrics.get("train/loss"), flush=True),
)
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
        run(copy.deepcopy(small_network), faces, model, tmp_path, checkpoint=state, purpose=["one"], log=interrupt)
    assert list(tmp_path.glob("state-*.ckpt"))
    log = lambda metrics, step: seen.append(step)  # noqa: E731
    run(small_network, faces, model, tmp_path, checkpoint=state, purpose=["another"], log=log)
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
            fit(network, criterion, data, OPTIMIZER, machine, task=FaceTask(model), seed=0, report=tmp_path)
    torch.testing.assert_close(networks[0].state_dict(), networks[1].state_dict())


def test_a_loss_that_is_not_finite_names_the_knob(
    small_network: FaceReconstructionNet, faces: Path, model: MorphableModel, tmp_path: Path
) -> None:
    def broken(network: nn.Module, batch: Batch) -> dict[str, torch.Tensor]:
        return {"loss": network(batch.images).sum() * float("nan")}

    data = FaceDataModule(faces, 4, 0)
    with pytest.raises(LeanFaceError, match="learning_rate"):
        fit(small_network, broken, data, OPTIMIZER, MACHINE, task=FaceTask(model), seed=0, report=tmp_path)


def test_mixed_precision_only_where_the_processor_has_it() -> None:
    capabilities = torch.cpu.get_capabilities()
    has_bf16 = capabilities.get("avx512_bf16") or capabilities.get("amx_bf16")
    automatic = MACHINE.model_copy(update={"precision": "auto"})
    assert resolve_precision(automatic, "cpu") == ("bf16-mixed" if has_bf16 else "32-true")
    assert resolve_precision(MACHINE, "cpu") == "32-true"


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
