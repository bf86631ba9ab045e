import copy

import pytest
import torch

from leanface.face.camera import camera_from_model
from leanface.face.coefficients import ANGLES, IDENTITY, split
from leanface.tasks.face.mirror import mirror_errors, mirror_of


@pytest.fixture(scope="module")
def mirror(model):
    return mirror_of(model)


def triangles(triangles: torch.Tensor) -> set[tuple[int, ...]]:
    """Corners in an order that does not depend on where a triangle starts."""
    first = triangles.argmin(1)
    turned = torch.stack([triangles.gather(1, ((first + k) % 3)[:, None])[:, 0] for k in range(3)], 1)
    return {tuple(corners) for corners in turned.tolist()}


def test_the_packaged_mesh_is_its_own_mirror_image(model, mirror):
    assert mirror.symmetric
    assert mirror.residual_mm < 0.3
    assert triangles(mirror.partner[model.triangles].flip(1)) == triangles(model.triangles)


def test_a_lopsided_mesh_is_not_and_its_residual_says_how_far(model):
    lopsided = copy.deepcopy(model)
    lopsided.mean_vertices[:, 0] *= 1 + 0.1 * (lopsided.mean_vertices[:, 0] > 0)
    mirror = mirror_of(lopsided)
    assert not mirror.symmetric
    assert mirror.residual_mm > mirror_of(model).residual_mm


def test_a_symmetric_reading_turned_the_other_way_is_its_own_mirror_image(model, mirror):
    reading = torch.zeros(1, 257)
    reading[:, ANGLES] = torch.tensor([0.1, 0.3, -0.2])
    turned = reading.clone()
    turned[:, ANGLES] = torch.tensor([0.1, -0.3, 0.2])
    errors = mirror_errors(model, mirror, reading, turned)
    assert float(errors["mirror_mm"]) < mirror.residual_mm
    assert float(errors["mirror_deg"]) < 0.1
    assert float(errors["mirror_levels"]) < 10  # the mean skin is not symmetric
    assert float(mirror_errors(model, mirror, reading, reading)["mirror_deg"]) > 30


def test_the_mirrored_pose_moves_mirrored_vertices_to_mirrored_places(model, mirror):
    angles, translation = torch.tensor([[0.2, 0.4, -0.1]]), torch.zeros(1, 3)
    sides = torch.tensor([-1.0, 1.0, 1.0])
    vertices = model.mean_vertices[None]
    there = camera_from_model(vertices, angles, translation) * sides
    here = camera_from_model(vertices * sides, angles * -sides, translation)
    assert torch.allclose(there, here, atol=1e-5)


def test_what_is_read_lopsidedly_shows(model, mirror, sampled):
    """Mirroring twice leaves a face as it was; a face that is not symmetric differs from its mirror image."""
    parts = split(sampled)
    vertices = model.vertices(parts.identity, parts.expression)
    sides = torch.tensor([-1.0, 1.0, 1.0])
    twice = (vertices * sides)[:, mirror.partner] * sides
    assert torch.equal(twice[:, mirror.partner], vertices)
    same = mirror_errors(model, mirror, sampled, sampled)["mirror_mm"]
    other = sampled.clone()
    other[:, IDENTITY] += 1.0
    assert (mirror_errors(model, mirror, sampled, other)["mirror_mm"] > same).all()
