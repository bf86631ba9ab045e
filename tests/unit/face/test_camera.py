"""Pose and projection."""

import math

import numpy as np
import pytest
import torch
from torch import Tensor

from leanface.face.camera import camera_from_model, image_from_camera, rotation_from_angles


def angles(count: int, limit_rad: float = 3.0) -> Tensor:
    generator = torch.Generator().manual_seed(0)
    return (torch.rand(count, 3, dtype=torch.float64, generator=generator) * 2 - 1) * limit_rad


def about(axis: int, angle_rad: Tensor) -> Tensor:
    """Right-handed turns about one axis, (B,3,3), by the textbook."""
    turn = torch.eye(3, dtype=torch.float64).repeat(len(angle_rad), 1, 1)
    i, j = (axis + 1) % 3, (axis + 2) % 3
    turn[:, i, i] = turn[:, j, j] = angle_rad.cos()
    turn[:, i, j], turn[:, j, i] = -angle_rad.sin(), angle_rad.sin()
    return turn


def test_rotations_are_orthonormal_and_keep_handedness() -> None:
    rotation = rotation_from_angles(angles(20))
    identity = torch.eye(3, dtype=torch.float64).expand(20, 3, 3)
    torch.testing.assert_close(rotation @ rotation.transpose(1, 2), identity)
    torch.testing.assert_close(torch.linalg.det(rotation), torch.ones(20, dtype=torch.float64))


def test_pitch_comes_first_then_yaw_then_roll() -> None:
    pitch, yaw, roll = angles(20).unbind(-1)
    expected = about(2, roll) @ about(1, yaw) @ about(0, pitch)
    torch.testing.assert_close(rotation_from_angles(torch.stack([pitch, yaw, roll], -1)), expected)


def test_angles_come_back_from_the_rotation() -> None:
    given = angles(50, limit_rad=1.5)
    rotation = rotation_from_angles(given)
    pitch = torch.atan2(rotation[:, 2, 1], rotation[:, 2, 2])
    yaw = -torch.asin(rotation[:, 2, 0])
    roll = torch.atan2(rotation[:, 1, 0], rotation[:, 0, 0])
    torch.testing.assert_close(torch.stack([pitch, yaw, roll], -1), given)


def test_no_angle_is_no_rotation() -> None:
    assert torch.equal(rotation_from_angles(torch.zeros(1, 3))[0], torch.eye(3))


def test_angles_turn_the_face_where_they_say() -> None:
    nose = torch.tensor([[[0.0, 0.0, 1.0]]]).expand(3, 1, 3)
    quarter = torch.eye(3) * math.pi / 2
    turned = camera_from_model(nose, quarter, torch.zeros(3, 3))[:, 0]
    expected = torch.tensor([[0.0, -1.0, 0.0], [1.0, 0.0, 0.0], [0.0, 0.0, 1.0]])  # pitch down, yaw right, roll
    torch.testing.assert_close(turned, expected, atol=1e-6, rtol=0)


def test_shapes_turn_before_they_move() -> None:
    generator = torch.Generator().manual_seed(1)
    vertices = torch.randn(4, 10, 3, dtype=torch.float64, generator=generator)
    translation = torch.randn(4, 3, dtype=torch.float64, generator=generator)
    found = camera_from_model(vertices, angles(4), translation)
    rotation = rotation_from_angles(angles(4))
    for face in range(4):
        expected = torch.stack([rotation[face] @ vertex + translation[face] for vertex in vertices[face]])
        torch.testing.assert_close(found[face], expected)


@pytest.mark.parametrize("size", [56, 112, 224, 448])
def test_projection_of_known_points(size: int) -> None:
    """Focal length 1015, center 112 (of the picture's edges, hence 111.5 of pixel centers), 10 dm away, at 224."""
    random = np.random.default_rng(0)
    points = random.uniform(-1.5, 1.5, (100, 3))
    depth = 10 - points[:, 2]
    scale = size / 224
    expected_x = (points[:, 0] * 1015 / depth + 112) * scale - 0.5
    expected_y = (-points[:, 1] * 1015 / depth + 112) * scale - 0.5
    found = image_from_camera(torch.tensor(points)[None], size)[0].numpy()
    np.testing.assert_allclose(found, np.stack([expected_x, expected_y, 1 / depth], -1), rtol=1e-12)


def test_projection_by_hand() -> None:
    points = torch.tensor([[[0.0, 0.0, 0.0], [1.0, 0.0, 0.0], [0.0, 1.0, 0.0], [0.0, 0.0, 5.0]]])
    image = image_from_camera(points, 224)[0]
    torch.testing.assert_close(image[0], torch.tensor([111.5, 111.5, 0.1]))
    torch.testing.assert_close(image[1, :2], torch.tensor([213.0, 111.5]))
    torch.testing.assert_close(image[2, :2], torch.tensor([111.5, 10.0]))
    assert image[3, 2] == 0.2


def test_what_is_nearer_is_larger_and_what_is_behind_the_camera_has_a_negative_depth() -> None:
    far, near, behind = image_from_camera(torch.tensor([[[1.0, 0, -2], [1.0, 0, 2], [1.0, 0, 12]]]), 224)[0]
    assert near[0] > far[0]
    assert near[2] > far[2] > 0 > behind[2]
