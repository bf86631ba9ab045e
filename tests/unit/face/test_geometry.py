"""The NumPy twins of the camera and the light, and heads that are turned about the camera's axis."""

import math

import numpy as np
import pytest
import torch

from leanface.face import geometry
from leanface.face.camera import camera_from_model, image_from_camera, rotation_from_angles
from leanface.face.coefficients import ANGLES, LIGHTING, TRANSLATION
from leanface.face.lighting import irradiance
from leanface.face.morphable_model import MorphableModel
from leanface.synthesis.synthesis import sample_coefficients


@pytest.fixture(scope="module")
def faces(model: MorphableModel) -> np.ndarray:
    return sample_coefficients(model, 3, torch.Generator().manual_seed(6)).numpy()


def test_projection_is_the_cameras() -> None:
    points = np.random.default_rng(0).normal(size=(50, 3))
    expected = image_from_camera(torch.from_numpy(points)[None], 112)[0].numpy()
    np.testing.assert_allclose(geometry.project(points, 112, geometry.DISTANCE_DM), expected, atol=1e-12)
    in_meters = geometry.project(geometry.METERS_PER_DM * points, 112)
    np.testing.assert_allclose(in_meters, expected * (1, 1, 1 / geometry.METERS_PER_DM), atol=1e-9)


@pytest.mark.parametrize("roll_rad", [0.0, 0.4, -1.2, math.pi])
def test_a_rolled_head_is_the_same_picture_turned_about_its_middle(faces: np.ndarray, roll_rad: float) -> None:
    cos, sin = math.cos(roll_rad), math.sin(roll_rad)
    about_z = np.array([(cos, -sin, 0), (sin, cos, 0), (0, 0, 1)])
    points = torch.from_numpy(np.random.default_rng(1).normal(size=(1, 20, 3)).astype(np.float32))
    for face in faces:
        turned = geometry.rolled(face, roll_rad)
        before, after = (
            camera_from_model(points, *(torch.from_numpy(row[None, part]) for part in (ANGLES, TRANSLATION)))[0].numpy()
            for row in (face, turned)
        )
        np.testing.assert_allclose(after, before @ about_z.T, atol=1e-5)
        rotation = rotation_from_angles(torch.from_numpy(face[None, ANGLES]))[0].numpy()
        normals = np.random.default_rng(2).normal(size=(40, 3)) @ rotation.T
        normals = (normals / np.linalg.norm(normals, axis=1, keepdims=True)).astype(np.float32)
        light_before, light_after = (
            irradiance(torch.from_numpy(directions[None]), torch.from_numpy(row[None, LIGHTING]))[0].numpy()
            for directions, row in ((normals, face), (normals @ about_z.T.astype(np.float32), turned))
        )
        np.testing.assert_allclose(light_after, light_before, atol=1e-4)
