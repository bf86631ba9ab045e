"""Sampling faces and what photography does to them."""

import pytest
import torch

from leanface.data.alignment import TEMPLATE_224
from leanface.data.synthesis import population, render_faces, sample_coefficients
from leanface.face.camera import camera_from_model, image_from_camera
from leanface.face.coefficients import split
from leanface.face.morphable_model import MorphableModel
from leanface.face.render import Renderer


def generator(seed: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def test_a_seed_fixes_every_bit(model: MorphableModel) -> None:
    renderer = Renderer(model, 64)
    images = []
    for _ in range(2):
        random = generator(3)
        images.append(render_faces(renderer, sample_coefficients(model, 4, random), random, 1.0))
    assert torch.equal(images[0], images[1])
    assert not torch.equal(sample_coefficients(model, 4, generator(3)), sample_coefficients(model, 4, generator(4)))


def test_limits_hold(model: MorphableModel) -> None:
    parts = split(sample_coefficients(model, 500, generator(), yaw_max_rad=0.3, clip=1.5))
    assert parts.identity.abs().max() <= 1.5
    assert parts.albedo.abs().max() <= 1.5
    assert parts.angles_rad[:, 1].abs().quantile(0.9) <= 0.3


def test_identity_is_shared_by_consecutive_faces(model: MorphableModel) -> None:
    parts = split(sample_coefficients(model, 7, generator(), images_per_identity=3))
    assert torch.equal(parts.identity[0], parts.identity[2])
    assert torch.equal(parts.albedo[3], parts.albedo[5])
    assert not torch.equal(parts.identity[2], parts.identity[3])
    assert not torch.equal(parts.expression[0], parts.expression[1])


def test_faces_are_framed_as_photos_are_aligned(model: MorphableModel) -> None:
    parts = split(sample_coefficients(model, 400, generator()))
    vertices = model.vertices(parts.identity, parts.expression)[:, model.landmarks]
    seen = image_from_camera(camera_from_model(vertices, parts.angles_rad, parts.translation), 224)[..., :2]
    centre = torch.from_numpy(TEMPLATE_224.mean(0)).float()
    offset = seen.mean(1) - centre
    assert offset.mean(0).abs().max() < 1.0  # no bias
    assert offset.std(0).max() < 6.0  # the jitter of a detector


@pytest.mark.parametrize("augment", [0.0, 1.0])
def test_images_are_valid_whatever_happens(model: MorphableModel, augment: float) -> None:
    random = generator(1)
    images = render_faces(Renderer(model, 64), sample_coefficients(model, 8, random), random, augment)
    assert images.shape == (8, 3, 64, 64)
    assert torch.isfinite(images).all()
    assert 0 <= images.min() <= images.max() <= 1


def test_population_is_what_sampling_gives(model: MorphableModel) -> None:
    mean, deviation = population(model)
    sample = sample_coefficients(model, 5000, generator(9))
    assert ((sample.mean(0) - mean).abs() < 0.1 * deviation + 1e-3).all()
    assert ((sample.std(0) / deviation - 1).abs() < 0.1).all()
