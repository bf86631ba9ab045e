import pytest
import torch
from torch import Tensor

from leanface.face.camera import DISTANCE_DM, FOCAL_PX
from leanface.face.coefficients import ALBEDO, EXPRESSION, IDENTITY, LIGHTING, TRANSLATION
from leanface.face.landmarks import landmarks_image
from leanface.face.morphable_model import MorphableModel
from leanface.synthesis.synthesis import population, sample_coefficients
from leanface.tasks.face.losses import TERMS, LandmarkLoss, VertexLoss


@pytest.fixture(scope="module")
def faces(model: MorphableModel) -> Tensor:
    return sample_coefficients(model, 48, torch.Generator().manual_seed(3))


@pytest.mark.parametrize("name", TERMS)
def test_terms_are_zero_at_identity_finite_and_of_one_value_per_sample(
    name: str, model: MorphableModel, faces: Tensor
) -> None:
    error = TERMS[name](model)
    assert torch.equal(error.per_sample(faces, faces), torch.zeros(len(faces)))
    apart = error.per_sample(faces.roll(1, dims=0), faces)
    assert apart.shape == (len(faces),)
    assert bool(torch.isfinite(apart).all())
    assert bool((apart > 0).all())
    # A face's error does not depend on how the others are read.
    other = faces.roll(1, dims=0)
    other[1:] += 0.1
    torch.testing.assert_close(error.per_sample(other, faces)[0], apart[0])


@pytest.mark.parametrize("name", TERMS)
def test_terms_lead_downhill_to_the_target(name: str, model: MorphableModel, faces: Tensor) -> None:
    error, target = TERMS[name](model), faces[:4]
    predicted = faces[4:8].clone().requires_grad_()
    before = error.per_sample(predicted, target)
    (gradient,) = torch.autograd.grad(before.sum(), predicted)
    assert bool(torch.isfinite(gradient).all())
    with torch.no_grad():
        step = 1e-4 / gradient.norm(dim=1, keepdim=True)
        assert bool((error.per_sample(predicted - step * gradient, target) < before).all())


def test_mean_face_in_the_right_pose_costs_one(model: MorphableModel, faces: Tensor) -> None:
    mean_shape = faces.clone()
    mean_shape[:, IDENTITY] = 0.0
    mean_shape[:, EXPRESSION] = 0.0
    assert float(VertexLoss(model).per_sample(mean_shape, faces).mean()) == pytest.approx(1.0, rel=0.25)


def test_only_shape_and_pose_count_for_vertices(model: MorphableModel, faces: Tensor) -> None:
    other = faces.clone()
    for part in (ALBEDO, LIGHTING, TRANSLATION):
        other[:, part] += 1.0
    assert float(VertexLoss(model).per_sample(other, faces).max()) == 0.0


def test_few_vertices_stand_for_all(model: MorphableModel, faces: Tensor) -> None:
    few, every = (
        float(VertexLoss(model, samples).per_sample(faces.roll(1, dims=0), faces).mean())
        for samples in (512, model.vertex_count)
    )
    assert few == pytest.approx(every, rel=0.05)


def test_autocast_does_not_blur_millimeters(model: MorphableModel, faces: Tensor) -> None:
    for loss in (VertexLoss(model), LandmarkLoss(model)):
        with torch.autocast("cpu", torch.bfloat16):
            inside = loss.per_sample(faces + 1e-3, faces)
        torch.testing.assert_close(inside, loss.per_sample(faces + 1e-3, faces))


def test_landmarks_cost_their_squared_distance_over_the_populations_variance(
    model: MorphableModel, faces: Tensor
) -> None:
    loss = LandmarkLoss(model)
    points = landmarks_image(model, faces, 224)
    distance_px2 = (points - points.roll(1, dims=0)).square().sum(-1).mean(1)
    torch.testing.assert_close(
        loss.per_sample(faces, faces.roll(1, dims=0)), distance_px2 / loss.variance_px2, rtol=1e-3, atol=1e-5
    )
    # Two draws differ by twice the variance.
    assert float(loss.per_sample(faces, faces.roll(1, dims=0)).mean()) == pytest.approx(2.0, rel=0.4)


def test_a_shift_along_the_image_moves_landmarks_by_what_the_camera_says(model: MorphableModel) -> None:
    mean, _ = population(model)
    face = mean[None].clone()
    face[:, TRANSLATION] = 0.0
    moved = face.clone()
    moved[:, TRANSLATION.start] += 0.01
    loss = LandmarkLoss(model)
    shift_px = float(loss.per_sample(moved, face).sqrt()) * loss.variance_px2**0.5
    assert shift_px == pytest.approx(0.01 * FOCAL_PX / DISTANCE_DM, rel=0.15)
