"""What the distillation criterion promises for every term of the face; a new one is tested on arrival."""

from pathlib import Path
from typing import Any

import pytest
import torch
import yaml
from pydantic import ValidationError
from torch import Tensor, nn

from leanface import paths
from leanface.config import Distill
from leanface.distillation.criterion import DistillationCriterion
from leanface.errors import ConfigError
from leanface.face.morphable_model import MorphableModel
from leanface.networks.resnet import FaceReconstructionNet
from leanface.pruning.groups import ChannelGraph
from leanface.pruning.importance import Magnitude
from leanface.pruning.prune import PruneResult, prune_channels
from leanface.synthesis.synthesis import sample_coefficients
from leanface.task import Batch
from leanface.tasks.face.losses import TERMS
from leanface.tasks.face.task import FaceTask
from tests.conftest import SmoothImages

CONF = Path(__file__).parents[2] / paths.CONF / "distill"
ALL = dict.fromkeys(TERMS, 1.0)
NONE = dict.fromkeys(TERMS, 0.0)


def settings(terms: dict[str, float] = ALL, **changes: Any) -> Distill:
    """What ships, with other terms or single values."""
    shipped = yaml.safe_load((CONF / "terms.yaml").read_text()) | {"temperature": 2.0, "alpha": 0.3}
    return Distill.model_validate(shipped | {"terms": terms} | changes)


@pytest.fixture
def batch(model: MorphableModel, smooth_images: SmoothImages) -> Batch:
    labels = sample_coefficients(model, 4, torch.Generator().manual_seed(1))
    return Batch(smooth_images(4, 1), labels, torch.arange(4))


@pytest.fixture
def pruned(small_network: FaceReconstructionNet) -> PruneResult:
    return prune_channels(
        small_network, dict.fromkeys(ChannelGraph(small_network).groups(), 0.5), Magnitude(), round_to=4
    )


class Asked(nn.Module):
    """Counts the images that a network is shown."""

    def __init__(self, network: FaceReconstructionNet) -> None:
        super().__init__()
        self.network = network
        self.images = 0

    def forward(self, images: Tensor) -> Tensor:
        self.images += len(images)
        return self.network(images)


def counting(criterion: DistillationCriterion) -> Asked:
    """Count what the criterion's teacher is asked."""
    asked = Asked(criterion.teacher.network)
    criterion.teacher.network = asked  # type: ignore[assignment]
    return asked


def test_what_ships_weighs_every_term() -> None:
    assert set(yaml.safe_load((CONF / "terms.yaml").read_text())["terms"]) == set(TERMS)


def test_an_unknown_term_is_named(model: MorphableModel, small_network: FaceReconstructionNet) -> None:
    with pytest.raises(ConfigError, match="there is no vertexes; use coefficients, vertices"):
        DistillationCriterion(small_network, FaceTask(model), settings({"vertexes": 1.0}))


def test_no_term_at_all_is_refused() -> None:
    with pytest.raises(ValidationError, match="at least one weight above 0"):
        settings(terms=NONE)


def test_distilling_from_itself_costs_nothing_but_the_labels(
    model: MorphableModel, small_network: FaceReconstructionNet, batch: Batch
) -> None:
    criterion = DistillationCriterion(small_network, FaceTask(model), settings(alpha=0.25))
    with torch.no_grad():
        terms = criterion(small_network, batch)
    assert set(TERMS) | {"labels", "loss"} <= set(terms)
    for term in set(terms) - {"labels", "loss"}:
        # The original runs in another memory layout, so it may round differently.
        assert float(terms[term]) == pytest.approx(0.0, abs=1e-5), term
    assert float(terms["labels"]) > 0.1
    assert float(terms["loss"]) == pytest.approx(0.25 * float(terms["labels"]), rel=1e-3)


def test_pruned_network_starts_with_every_term(
    model: MorphableModel, small_network: FaceReconstructionNet, pruned: PruneResult, batch: Batch
) -> None:
    criterion = DistillationCriterion(small_network, FaceTask(model), settings())
    with torch.no_grad():
        terms = criterion(pruned.network, batch)
    assert all(value.shape == () and bool(torch.isfinite(value)) and float(value) > 1e-5 for value in terms.values())


def test_gradient_reaches_the_student_alone(
    model: MorphableModel, small_network: FaceReconstructionNet, pruned: PruneResult, batch: Batch
) -> None:
    criterion = DistillationCriterion(small_network, FaceTask(model), settings()).train()
    pruned.network.train()
    before = {key: value.clone() for key, value in criterion.teacher.state_dict().items()}
    criterion(pruned.network, batch)["loss"].backward()
    assert all(parameter.grad is not None for parameter in pruned.network.parameters())
    assert all(bool(torch.isfinite(parameter.grad).all()) for parameter in pruned.network.parameters())
    assert not any(parameter.requires_grad for parameter in criterion.parameters())
    assert all(parameter.grad is None for parameter in small_network.parameters())
    # Nor do the original's batch norms learn from what passes through them.
    assert not criterion.teacher.network.training
    assert all(torch.equal(value, before[key]) for key, value in criterion.teacher.state_dict().items())
    # The caller's own network is not frozen with it.
    assert all(parameter.requires_grad for parameter in small_network.parameters())


@pytest.mark.parametrize("name", TERMS)
def test_each_term_counts_by_its_weight_and_alone_if_the_others_have_none(
    name: str, model: MorphableModel, small_network: FaceReconstructionNet, pruned: PruneResult, batch: Batch
) -> None:
    student = pruned.network
    once, thrice = (
        DistillationCriterion(
            small_network, FaceTask(model), settings(imitation=0, alpha=0, terms=NONE | {name: weight})
        )
        for weight in (1.0, 3.0)
    )
    with torch.no_grad():
        first, second = once(student, batch), thrice(student, batch)
    assert set(first) == {name, "loss"}
    assert float(first["loss"]) == pytest.approx(float(first[name]))
    assert float(second["loss"]) == pytest.approx(3 * float(first[name]), rel=1e-5)


@pytest.mark.parametrize("alpha", [0.0, 0.4, 1.0])
def test_alpha_weighs_labels_against_the_original(
    model: MorphableModel, small_network: FaceReconstructionNet, pruned: PruneResult, batch: Batch, alpha: float
) -> None:
    terms = {"coefficients": 2.0, "vertices": 0.5, "landmarks": 0.1, "photometric": 0.3}
    criterion = DistillationCriterion(small_network, FaceTask(model), settings(terms, imitation=0, alpha=alpha))
    asked = counting(criterion)
    with torch.no_grad():
        found = {name: float(value) for name, value in criterion(pruned.network, batch).items()}
    wanted = alpha * found.get("labels", 0.0)
    if alpha < 1:
        wanted += (1 - alpha) * sum(weight * found[name] for name, weight in terms.items())
    assert ("labels" in found) == (alpha > 0)
    assert found["loss"] == pytest.approx(wanted, rel=1e-5)
    assert (asked.images > 0) == (alpha < 1), "labels alone need no original"


def test_labels_are_what_the_original_would_cost_if_it_were_right(
    model: MorphableModel, small_network: FaceReconstructionNet, pruned: PruneResult, batch: Batch
) -> None:
    criterion = DistillationCriterion(small_network, FaceTask(model), settings())
    with torch.no_grad():
        terms = criterion(pruned.network, batch._replace(targets=small_network(batch.images)))
    assert float(terms["labels"]) == pytest.approx(sum(float(terms[name]) for name in TERMS), rel=1e-4)


def test_without_labels_the_original_alone_counts_in_full(
    model: MorphableModel, small_network: FaceReconstructionNet, pruned: PruneResult, batch: Batch
) -> None:
    student = pruned.network
    photos = batch._replace(targets=None)
    losses = []
    for alpha in (0.0, 0.7):
        criterion = DistillationCriterion(small_network, FaceTask(model), settings(alpha=alpha))
        with torch.no_grad():
            terms = criterion(student, photos)
        assert "labels" not in terms
        losses.append(float(terms["loss"]))
    expected = sum(float(terms[term]) for term in TERMS)
    assert losses == pytest.approx([expected, expected], rel=1e-5)


def test_temperature_changes_the_loss(
    model: MorphableModel, small_network: FaceReconstructionNet, pruned: PruneResult, batch: Batch
) -> None:
    losses, doubt = [], torch.tensor([0.0, 0.1, 0.2, 0.3])[:, None]
    with torch.no_grad():  # an original that is right about some faces, less so about others
        batch = batch._replace(targets=small_network(batch.images) + doubt)
    for temperature in (1.0, 100.0):
        chosen = settings(terms=dict.fromkeys(TERMS, 1e-6), temperature=temperature)
        criterion = DistillationCriterion(small_network, FaceTask(model), chosen)
        with torch.no_grad():
            losses.append(float(criterion(pruned.network, batch)["loss"]))
    assert losses[0] != pytest.approx(losses[1], rel=1e-4)


def test_the_original_is_asked_once_per_stored_image(
    model: MorphableModel, small_network: FaceReconstructionNet, pruned: PruneResult, batch: Batch
) -> None:
    student = pruned.network
    criterion, fresh = (DistillationCriterion(small_network, FaceTask(model), settings()) for _ in range(2))
    asked = counting(criterion)
    half = Batch(*(part[:2] for part in batch))  # type: ignore[index]
    with torch.no_grad():
        for part in (half, batch, batch, half):
            terms = criterion(student, part)
        expected = fresh(student, half)
    for term, value in expected.items():
        torch.testing.assert_close(terms[term], value, rtol=1e-4, atol=1e-5)
    assert asked.images == 4


def test_other_images_are_asked_about_whatever_came_before(
    model: MorphableModel, small_network: FaceReconstructionNet, batch: Batch, smooth_images: SmoothImages
) -> None:
    criterion = DistillationCriterion(small_network, FaceTask(model), settings(imitation=0.0))
    other = batch._replace(images=smooth_images(4, 2), keys=torch.arange(4, 8))
    streamed = batch._replace(images=smooth_images(4, 3), keys=None)
    for part in (batch, other, streamed, batch):
        with torch.no_grad():
            answers = small_network(part.images)
            torch.testing.assert_close(criterion.teacher(part), answers, rtol=1e-3, atol=1e-4)
