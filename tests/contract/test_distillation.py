"""What the distillation criterion promises for every term and attention; a new line in a table is tested on arrival."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
import yaml
from pydantic import ValidationError
from torch import Tensor, nn

from leanface import paths
from leanface.config import Attention, Distill, Terms
from leanface.distillation.attention import ATTENTIONS
from leanface.distillation.criterion import DistillationCriterion
from leanface.distillation.losses import TERMS
from leanface.face.morphable_model import MorphableModel
from leanface.networks.resnet import FaceReconstructionNet
from leanface.pruning.groups import ChannelGraph
from leanface.pruning.importance import Magnitude
from leanface.pruning.prune import PruneResult, prune_channels
from leanface.synthesis.dataset import FaceBatch
from leanface.synthesis.synthesis import sample_coefficients

SmoothImages = Callable[[int, int], Tensor]

CONF = Path(__file__).parents[2] / paths.CONF / "distill"
ALL = dict.fromkeys(TERMS, 1.0)
NONE = dict.fromkeys(TERMS, 0.0)


def settings(
    attention: str = "channels", weight: float = 0.5, terms: dict[str, float] = ALL, **changes: Any
) -> Distill:
    """What ships, with another attention, terms or single values."""
    shipped = yaml.safe_load((CONF / "terms.yaml").read_text()) | {"temperature": 2.0, "alpha": 0.3}
    chosen = {"terms": terms, "attention": {"name": attention, "weight": weight}}
    return Distill.model_validate(shipped | chosen | changes)


@pytest.fixture
def batch(model: MorphableModel, smooth_images: SmoothImages) -> FaceBatch:
    labels = sample_coefficients(model, 4, torch.Generator().manual_seed(1))
    return FaceBatch(smooth_images(4, 1), labels, torch.arange(4))


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

    def forward_with_maps(self, images: Tensor) -> tuple[Tensor, list[Tensor]]:
        self.images += len(images)
        return self.network.forward_with_maps(images)


def counting(criterion: DistillationCriterion) -> Asked:
    """Count what the criterion's original is asked."""
    asked = Asked(criterion.original.network)
    criterion.original.network = asked  # type: ignore[assignment]
    return asked


def test_weights_are_those_of_the_terms() -> None:
    assert set(Terms.model_fields) == set(TERMS)


@pytest.mark.parametrize("name", ATTENTIONS)
def test_file_configures_the_attention_that_it_is_named_after(name: str) -> None:
    assert Attention.model_validate(yaml.safe_load((CONF / f"attention/{name}.yaml").read_text())).name == name


def test_no_term_at_all_is_refused() -> None:
    with pytest.raises(ValidationError, match="at least one weight above 0"):
        settings(terms=NONE)


@pytest.mark.parametrize("name", ATTENTIONS)
def test_distilling_from_itself_costs_nothing_but_the_labels(
    name: str, model: MorphableModel, small_network: FaceReconstructionNet, batch: FaceBatch
) -> None:
    criterion = DistillationCriterion(small_network, model, settings(name, alpha=0.25), None)
    with torch.no_grad():
        terms = criterion(small_network, batch)
    assert set(TERMS) | {"labels", "loss"} <= set(terms)
    for term in set(terms) - {"labels", "loss"}:
        # The original runs in another memory layout, so it may round differently.
        assert float(terms[term]) == pytest.approx(0.0, abs=1e-5), term
    assert float(terms["labels"]) > 0.1
    assert float(terms["loss"]) == pytest.approx(0.25 * float(terms["labels"]), rel=1e-3)


@pytest.mark.parametrize("name", ATTENTIONS)
def test_pruned_network_starts_with_every_term(
    name: str, model: MorphableModel, small_network: FaceReconstructionNet, pruned: PruneResult, batch: FaceBatch
) -> None:
    criterion = DistillationCriterion(small_network, model, settings(name), pruned.kept)
    with torch.no_grad():
        terms = criterion(pruned.network, batch)
    assert ("attention" in terms) == criterion.attention.reads_maps
    assert all(value.shape == () and bool(torch.isfinite(value)) and float(value) > 1e-5 for value in terms.values())


@pytest.mark.parametrize("name", ATTENTIONS)
def test_gradient_reaches_the_student_alone(
    name: str, model: MorphableModel, small_network: FaceReconstructionNet, pruned: PruneResult, batch: FaceBatch
) -> None:
    criterion = DistillationCriterion(small_network, model, settings(name), pruned.kept).train()
    pruned.network.train()
    before = {key: value.clone() for key, value in criterion.original.state_dict().items()}
    criterion(pruned.network, batch)["loss"].backward()
    assert all(parameter.grad is not None for parameter in pruned.network.parameters())
    assert all(bool(torch.isfinite(parameter.grad).all()) for parameter in pruned.network.parameters())
    assert not any(parameter.requires_grad for parameter in criterion.parameters())
    assert all(parameter.grad is None for parameter in small_network.parameters())
    # Nor do the original's batch norms learn from what passes through them.
    assert not criterion.original.network.training
    assert all(torch.equal(value, before[key]) for key, value in criterion.original.state_dict().items())
    # The caller's own network is not frozen with it.
    assert all(parameter.requires_grad for parameter in small_network.parameters())


@pytest.mark.parametrize("name", TERMS)
def test_each_term_counts_by_its_weight_and_alone_if_the_others_have_none(
    name: str, model: MorphableModel, small_network: FaceReconstructionNet, pruned: PruneResult, batch: FaceBatch
) -> None:
    student, kept = pruned
    once, thrice = (
        DistillationCriterion(small_network, model, settings(weight=0, alpha=0, terms=NONE | {name: weight}), kept)
        for weight in (1.0, 3.0)
    )
    with torch.no_grad():
        first, second = once(student, batch), thrice(student, batch)
    assert set(first) == {name, "loss"}
    assert float(first["loss"]) == pytest.approx(float(first[name]))
    assert float(second["loss"]) == pytest.approx(3 * float(first[name]), rel=1e-5)


@pytest.mark.parametrize("alpha", [0.0, 0.4, 1.0])
def test_alpha_weighs_labels_against_the_original(
    model: MorphableModel, small_network: FaceReconstructionNet, pruned: PruneResult, batch: FaceBatch, alpha: float
) -> None:
    terms = {"coefficients": 2.0, "vertices": 0.5, "landmarks": 0.1, "photometric": 0.3}
    criterion = DistillationCriterion(
        small_network, model, settings(weight=0.25, terms=terms, alpha=alpha), pruned.kept
    )
    asked = counting(criterion)
    with torch.no_grad():
        found = {name: float(value) for name, value in criterion(pruned.network, batch).items()}
    wanted = alpha * found.get("labels", 0.0)
    if alpha < 1:
        imitation = sum(weight * found[name] for name, weight in terms.items())
        wanted += (1 - alpha) * (imitation + 0.25 * found["attention"])
    assert ("labels" in found) == (alpha > 0)
    assert found["loss"] == pytest.approx(wanted, rel=1e-5)
    assert (asked.images > 0) == (alpha < 1), "labels alone need no original"


def test_labels_are_what_the_original_would_cost_if_it_were_right(
    model: MorphableModel, small_network: FaceReconstructionNet, pruned: PruneResult, batch: FaceBatch
) -> None:
    criterion = DistillationCriterion(small_network, model, settings(), pruned.kept)
    with torch.no_grad():
        terms = criterion(pruned.network, batch._replace(coefficients=small_network(batch.images)))
    assert float(terms["labels"]) == pytest.approx(sum(float(terms[name]) for name in TERMS), rel=1e-4)


@pytest.mark.parametrize("name", ATTENTIONS)
def test_without_labels_the_original_alone_counts_in_full(
    name: str, model: MorphableModel, small_network: FaceReconstructionNet, pruned: PruneResult, batch: FaceBatch
) -> None:
    student, kept = pruned
    photos = batch._replace(coefficients=None)
    losses = []
    for alpha in (0.0, 0.7):
        criterion = DistillationCriterion(small_network, model, settings(name, alpha=alpha), kept)
        with torch.no_grad():
            terms = criterion(student, photos)
        assert "labels" not in terms
        losses.append(float(terms["loss"]))
    expected = sum(float(terms[term]) for term in TERMS) + 0.5 * float(terms.get("attention", 0.0))
    assert losses == pytest.approx([expected, expected], rel=1e-5)


@pytest.mark.parametrize("name", ATTENTIONS)
def test_temperature_changes_the_loss(
    name: str, model: MorphableModel, small_network: FaceReconstructionNet, pruned: PruneResult, batch: FaceBatch
) -> None:
    losses, doubt = [], torch.tensor([0.0, 0.1, 0.2, 0.3])[:, None]
    with torch.no_grad():  # an original that is right about some faces, less so about others
        batch = batch._replace(coefficients=small_network(batch.images) + doubt)
    for temperature in (1.0, 100.0):
        chosen = settings(name, terms=dict.fromkeys(TERMS, 1e-6), temperature=temperature)
        criterion = DistillationCriterion(small_network, model, chosen, pruned.kept)
        with torch.no_grad():
            losses.append(float(criterion(pruned.network, batch)["loss"]))
    assert losses[0] != pytest.approx(losses[1], rel=1e-4)


@pytest.mark.parametrize("name", ATTENTIONS)
def test_the_original_is_asked_once_per_stored_image(
    name: str, model: MorphableModel, small_network: FaceReconstructionNet, pruned: PruneResult, batch: FaceBatch
) -> None:
    student, kept = pruned
    criterion, fresh = (DistillationCriterion(small_network, model, settings(name), kept) for _ in range(2))
    asked = counting(criterion)
    half = FaceBatch(*(part[:2] for part in batch))  # type: ignore[index]
    with torch.no_grad():
        for part in (half, batch, batch, half):
            terms = criterion(student, part)
        expected = fresh(student, half)
    for term, value in expected.items():
        torch.testing.assert_close(terms[term], value, rtol=1e-4, atol=1e-5)
    assert asked.images == (4 if criterion.attention.compact else 12)


def test_other_images_are_asked_about_whatever_came_before(
    model: MorphableModel, small_network: FaceReconstructionNet, batch: FaceBatch, smooth_images: SmoothImages
) -> None:
    criterion = DistillationCriterion(small_network, model, settings(weight=0.0), None)
    other = batch._replace(images=smooth_images(4, 2), keys=torch.arange(4, 8))
    streamed = batch._replace(images=smooth_images(4, 3), keys=None)
    for part in (batch, other, streamed, batch):
        with torch.no_grad():
            answers = small_network(part.images)
            torch.testing.assert_close(criterion.original(part).coefficients, answers, rtol=1e-3, atol=1e-4)
