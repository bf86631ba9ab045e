"""An animated head is, at each of its times, the head that the coefficients describe."""

import numpy as np
import pytest

from leanface.face.animation import Motion, encode_animation, quaternions
from leanface.face.coefficients import ANGLES, EXPRESSION, IDENTITY
from leanface.face.geometry import rotation_from_angles
from leanface.face.mesh import Mesh
from leanface.reconstruction.surface import Surface
from tests.glb import Glb

TEXTURE_PX = 16


@pytest.fixture(scope="module")
def surface() -> Surface:
    return Surface()


def matrix(quaternion: np.ndarray) -> np.ndarray:
    x, y, z, w = quaternion
    cross = np.array([[0, -z, y], [z, 0, -x], [-y, x, 0]])
    return np.eye(3) + 2 * w * cross + 2 * cross @ cross


def test_quaternions_turn_as_the_angles_do_and_take_the_short_way() -> None:
    angles = np.cumsum(np.random.default_rng(0).normal(0, 0.3, (200, 3)), axis=0)
    turns = quaternions(angles)
    assert np.linalg.norm(turns, axis=1) == pytest.approx(1, abs=1e-6)
    for turn, row in zip(turns, angles, strict=True):
        np.testing.assert_allclose(matrix(turn), rotation_from_angles(row), atol=1e-5)
    assert (turns[1:] * turns[:-1]).sum(1).min() > 0


def test_each_frame_s_mesh_is_the_decoder_s(surface: Surface) -> None:
    generator = np.random.default_rng(1)
    rows = np.zeros((4, 257), np.float32)
    rows[:, IDENTITY] = generator.normal(size=80)
    rows[:, EXPRESSION] = generator.normal(size=(4, 64))
    rows[:, ANGLES] = generator.normal(0, 0.4, (4, 3))
    places = generator.normal(0, 0.1, (4, 3)).astype(np.float32)
    seconds = np.array([0, 0.04, 0.3, 0.35], np.float32)
    neutral = rows[0].copy()
    neutral[EXPRESSION] = 0
    layout = surface.layout(TEXTURE_PX)
    vertices = surface.decoder.vertices(neutral)
    normals = surface.decoder.normals(vertices)
    texture = np.zeros((TEXTURE_PX, TEXTURE_PX, 3), np.uint8)
    mesh = Mesh(vertices[layout.vertex], normals[layout.vertex], layout, texture, "jpeg")
    motion = Motion(seconds, rows[:, EXPRESSION], rows[:, ANGLES], places)
    content = encode_animation("anna", mesh, surface.expression_moves[:, layout.vertex], motion)
    assert len(content) < 8_000_000  # half of what 64 full targets take

    glb = Glb.parse(content)
    parent, head = glb.scene["nodes"]
    assert (parent["children"], head["mesh"]) == ([1], 0)
    (primitive,) = glb.scene["meshes"][0]["primitives"]
    rest = glb.array(primitive["attributes"]["POSITION"])
    targets = np.stack([glb.array(target["POSITION"]) for target in primitive["targets"]])
    assert (targets == 0).all(-1).mean() > 0.5  # which the sparse accessors leave out
    tracks = glb.animation()
    np.testing.assert_array_equal(tracks["times"], seconds)
    weights = tracks["weights"].reshape(4, 64)
    for frame, row in enumerate(rows):
        shape = rest + np.tensordot(weights[frame], targets, 1)
        placed = shape @ matrix(tracks["rotation"][frame]).T + tracks["translation"][frame]
        expected = surface.decoder.vertices(row)[layout.vertex] @ rotation_from_angles(row[ANGLES]).T + places[frame]
        errors_m = np.linalg.norm(placed - expected, axis=1)
        assert errors_m.mean() < 5e-5
        assert errors_m.max() < 3e-4
    # Viewers look at the origin.
    np.testing.assert_allclose(np.add(parent["translation"], places.mean(0)), 0, atol=1e-6)
