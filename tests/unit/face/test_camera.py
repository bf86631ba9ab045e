"""Pose and projection."""

import math

import torch

from leanface.face.camera import camera_from_model, image_from_camera, rotation_from_angles


def test_rotations_are_orthonormal_and_keep_handedness() -> None:
    rotation = rotation_from_angles(torch.rand(20, 3, dtype=torch.float64) * 6 - 3)
    identity = torch.eye(3, dtype=torch.float64).expand(20, 3, 3)
    torch.testing.assert_close(rotation @ rotation.transpose(1, 2), identity)
    torch.testing.assert_close(torch.linalg.det(rotation), torch.ones(20, dtype=torch.float64))


def test_angles_turn_the_face_where_they_say() -> None:
    nose = torch.tensor([[[0.0, 0.0, 1.0]]]).expand(3, 1, 3)
    quarter = torch.eye(3) * math.pi / 2
    turned = camera_from_model(nose, quarter, torch.zeros(3, 3))[:, 0]
    expected = torch.tensor([[0.0, -1.0, 0.0], [1.0, 0.0, 0.0], [0.0, 0.0, 1.0]])  # pitch down, yaw right, roll
    torch.testing.assert_close(turned, expected, atol=1e-6, rtol=0)


def test_projection_of_known_points() -> None:
    points = torch.tensor([[[0.0, 0.0, 0.0], [1.0, 0.0, 0.0], [0.0, 1.0, 0.0], [0.0, 0.0, 5.0]]])
    image = image_from_camera(points, 224)[0]
    torch.testing.assert_close(image[0], torch.tensor([111.5, 111.5, 0.1]))
    torch.testing.assert_close(image[1, :2], torch.tensor([213.0, 111.5]))
    torch.testing.assert_close(image[2, :2], torch.tensor([111.5, 10.0]))
    assert image[3, 2] == 0.2


def test_projection_scales_with_the_image() -> None:
    points = torch.rand(1, 50, 3)
    large, small = image_from_camera(points, 224), image_from_camera(points, 112)
    torch.testing.assert_close((large[..., :2] + 0.5) / 2, small[..., :2] + 0.5)
