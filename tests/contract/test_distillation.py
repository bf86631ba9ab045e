"""What the distillation criterion promises, for every setting of its weights."""

from collections.abc import Callable

import pytest
import torch
from torch import Tensor

from leanface.config import Distill, Optimizer
from leanface.data.dataset import FaceBatch
from leanface.data.synthesis import sample_coefficients
from leanface.distillation.criterion import DistillationCriterion
from leanface.face.morphable_model import MorphableModel
from leanface.networks.resnet import FaceReconstructionNet
from leanface.pruning.groups import coupled_groups
from leanface.pruning.importance.magnitude import Magnitude
from leanface.pruning.prune import PruneResult, prune_channels

SmoothImages = Callable[[int, int], Tensor]

OPTIMIZER = Optimizer(
    steps=1,
    batch_size=4,
    learning_rate=1e-3,
    warmup_fraction=0.0,
    weight_decay=0.0,
    ema_decay=0.0,
    gradient_clip=1.0,
)


def settings(alpha: float = 0.3, **weights: float) -> Distill:
    ones = {f"{name}_weight": 1.0 for name in ("coefficient", "vertex", "attention")}
    return Distill(temperature=2.0, alpha=alpha, freeze_batch_norm=True, optimizer=OPTIMIZER, **(ones | weights))


@pytest.fixture
def batch(model: MorphableModel, smooth_images: SmoothImages) -> FaceBatch:
    return FaceBatch(smooth_images(4, 1), sample_coefficients(model, 4, torch.Generator().manual_seed(1)))


@pytest.fixture
def pruned(small_network: FaceReconstructionNet) -> PruneResult:
    return prune_channels(small_network, dict.fromkeys(coupled_groups(small_network), 0.5), Magnitude(), round_to=4)


def test_distilling_from_itself_costs_nothing_but_the_labels(
    model: MorphableModel, small_network: FaceReconstructionNet, batch: FaceBatch
) -> None:
    criterion = DistillationCriterion(small_network, model, settings(alpha=0.25), None)
    with torch.no_grad():
        terms = criterion(small_network, batch)
    # The original runs in another memory layout, so it may round differently.
    assert float(terms["coefficients"]) == pytest.approx(0.0, abs=1e-6)
    assert float(terms["vertices"]) == pytest.approx(0.0, abs=1e-6)
    assert float(terms["attention"]) == pytest.approx(0.0, abs=1e-6)
    assert float(terms["labels"]) > 0.1
    assert float(terms["loss"]) == pytest.approx(0.25 * float(terms["labels"]), rel=1e-4)


def test_pruned_network_starts_with_every_term(
    model: MorphableModel, small_network: FaceReconstructionNet, pruned: PruneResult, batch: FaceBatch
) -> None:
    criterion = DistillationCriterion(small_network, model, settings(), pruned.kept)
    with torch.no_grad():
        terms = criterion(pruned.network, batch)
    assert all(float(value) > 1e-5 for value in terms.values())


def test_gradient_reaches_the_student_alone(
    model: MorphableModel, small_network: FaceReconstructionNet, pruned: PruneResult, batch: FaceBatch
) -> None:
    criterion = DistillationCriterion(small_network, model, settings(), pruned.kept).train()
    pruned.network.train()
    before = {name: value.clone() for name, value in criterion.teacher.state_dict().items()}
    criterion(pruned.network, batch)["loss"].backward()
    assert all(parameter.grad is not None for parameter in pruned.network.parameters())
    assert not any(parameter.requires_grad for parameter in criterion.parameters())
    assert all(parameter.grad is None for parameter in small_network.parameters())
    # Nor do the original's batch norms learn from what passes through them.
    assert all(torch.equal(value, before[name]) for name, value in criterion.teacher.state_dict().items())
    # The caller's own network is not frozen with it.
    assert all(parameter.requires_grad for parameter in small_network.parameters())


@pytest.mark.parametrize("alpha", [0.0, 1.0])
def test_alpha_weighs_labels_against_the_original(
    model: MorphableModel,
    small_network: FaceReconstructionNet,
    pruned: PruneResult,
    batch: FaceBatch,
    alpha: float,
) -> None:
    weights = {"coefficient_weight": 2.0, "vertex_weight": 0.5, "attention_weight": 0.25}
    criterion = DistillationCriterion(small_network, model, settings(alpha, **weights), pruned.kept)
    with torch.no_grad():
        terms = criterion(pruned.network, batch)
    terms_by_weight = {"coefficient": "coefficients", "vertex": "vertices", "attention": "attention"}
    imitation = sum(weights[f"{name}_weight"] * float(terms[term]) for name, term in terms_by_weight.items())
    wanted = float(terms["labels"]) if alpha == 1.0 else imitation
    assert float(terms["loss"]) == pytest.approx(wanted, rel=1e-5)


def test_labels_are_what_the_original_would_cost_if_it_were_right(
    model: MorphableModel, small_network: FaceReconstructionNet, pruned: PruneResult, batch: FaceBatch
) -> None:
    criterion = DistillationCriterion(small_network, model, settings(), pruned.kept)
    with torch.no_grad():
        answers = small_network(batch.images)
        terms = criterion(pruned.network, batch._replace(coefficients=answers))
    wanted = float(terms["coefficients"]) + float(terms["vertices"])
    assert float(terms["labels"]) == pytest.approx(wanted, rel=1e-4)


def test_without_labels_the_original_alone_counts_in_full(
    model: MorphableModel, small_network: FaceReconstructionNet, pruned: PruneResult, batch: FaceBatch
) -> None:
    student, kept = pruned
    criteria = [DistillationCriterion(small_network, model, settings(alpha=alpha), kept) for alpha in (0.0, 0.7)]
    with torch.no_grad():
        labelled = criteria[0](student, batch)
        unlabelled = [criterion(student, batch._replace(coefficients=None)) for criterion in criteria]
    assert "labels" not in unlabelled[0]
    for terms in unlabelled:
        assert float(terms["loss"]) == pytest.approx(float(labelled["loss"]), rel=1e-5)
