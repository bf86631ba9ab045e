import math

import pytest
import torch
from torch import Tensor

from leanface.data.synthesis import sample_coefficients
from leanface.distillation.losses import AttentionLoss, VertexLoss
from leanface.face.coefficients import ALBEDO, EXPRESSION, IDENTITY, LIGHTING, TRANSLATION
from leanface.face.morphable_model import MorphableModel


@pytest.fixture(scope="module")
def faces(model: MorphableModel) -> Tensor:
    return sample_coefficients(model, 48, torch.Generator().manual_seed(3))


def test_same_face_has_the_same_vertices(model: MorphableModel, faces: Tensor) -> None:
    assert float(VertexLoss(model)(faces, faces)) == 0.0


def test_mean_face_in_the_right_pose_costs_one(model: MorphableModel, faces: Tensor) -> None:
    mean_shape = faces.clone()
    mean_shape[:, IDENTITY] = 0.0
    mean_shape[:, EXPRESSION] = 0.0
    assert float(VertexLoss(model)(mean_shape, faces)) == pytest.approx(1.0, rel=0.25)


def test_only_shape_and_pose_count(model: MorphableModel, faces: Tensor) -> None:
    other = faces.clone()
    for part in (ALBEDO, LIGHTING, TRANSLATION):
        other[:, part] += 1.0
    assert float(VertexLoss(model)(other, faces)) == 0.0


def test_few_vertices_stand_for_all(model: MorphableModel, faces: Tensor) -> None:
    few, every = VertexLoss(model), VertexLoss(model, samples=model.vertex_count)
    other = faces.roll(1, dims=0)
    assert float(few(other, faces)) == pytest.approx(float(every(other, faces)), rel=0.05)


def test_autocast_does_not_blur_millimetres(model: MorphableModel, faces: Tensor) -> None:
    loss, other = VertexLoss(model), faces + 1e-3
    with torch.autocast("cpu", torch.bfloat16):
        inside = float(loss(other, faces))
    assert inside == pytest.approx(float(loss(other, faces)), rel=1e-6)


def maps(channels: int, seed: int) -> Tensor:
    return 3 * torch.randn(2, channels, 5, 4, generator=torch.Generator().manual_seed(seed))


def test_each_channel_is_compared_with_the_one_it_came_from() -> None:
    teacher, kept = maps(8, 0), torch.tensor([1, 4, 6])
    loss = AttentionLoss(temperature=2.0)
    assert float(loss([teacher[:, kept]], [teacher], [kept])) == 0.0
    assert float(loss([teacher[:, kept]], [teacher], [kept.roll(1)])) > 0.1


def test_attention_ignores_a_channels_offset_but_not_its_scale() -> None:
    teacher, kept = maps(4, 0), torch.arange(4)
    loss = AttentionLoss(temperature=2.0)
    assert float(loss([teacher + 5.0], [teacher], [kept])) == pytest.approx(0.0, abs=1e-5)
    assert float(loss([teacher * 2.0], [teacher], [kept])) > 0.1


def test_attention_is_the_mean_kl_divergence_over_images_channels_and_stages() -> None:
    temperature, kept = 3.0, torch.arange(4)
    student, teacher = [maps(4, 1), maps(4, 2)], [maps(4, 3), maps(4, 4)]
    total, count = 0.0, 0
    for ours, theirs in zip(student, teacher, strict=True):
        for p_map, q_map in zip(theirs.flatten(0, 1).tolist(), ours.flatten(0, 1).tolist(), strict=True):
            p, q = (softmax([v / temperature for row in each for v in row]) for each in (p_map, q_map))
            total += sum(a * math.log(a / b) for a, b in zip(p, q, strict=True))
            count += 1
    loss = AttentionLoss(temperature)(student, teacher, [kept, kept])
    assert float(loss) == pytest.approx(temperature**2 * total / count, rel=1e-4)


def softmax(values: list[float]) -> list[float]:
    exponentials = [math.exp(value) for value in values]
    return [value / sum(exponentials) for value in exponentials]


def test_temperature_does_not_shrink_the_gradient() -> None:
    teacher, kept = maps(4, 0), torch.arange(4)
    norms = []
    for temperature in (20.0, 200.0):
        student = maps(4, 1).requires_grad_()
        AttentionLoss(temperature)([student], [teacher], [kept]).backward()
        assert student.grad is not None
        norms.append(float(student.grad.norm()))
    assert norms[1] == pytest.approx(norms[0], rel=0.2)
