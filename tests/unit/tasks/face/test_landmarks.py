import pytest
import torch

from leanface.face.camera import camera_from_model, image_from_camera
from leanface.face.coefficients import TRANSLATION, split
from leanface.face.landmarks import landmarks_image
from leanface.photos.alignment import TEMPLATE_224
from leanface.tasks.face.landmarks import interocular_px, landmark_errors


def test_landmarks_are_the_models_vertices_projected(model, sampled):
    parts = split(sampled)
    posed = camera_from_model(model.vertices(parts.identity, parts.expression), parts.angles_rad, parts.translation)
    expected = image_from_camera(posed, 112)[:, model.landmarks, :2]
    assert torch.allclose(landmarks_image(model, sampled, 112), expected, atol=1e-3)


def test_the_mean_face_has_them_where_the_alignment_puts_them(model):
    points = landmarks_image(model, torch.zeros(1, 257), 224)[0]
    assert torch.allclose(points.double(), torch.from_numpy(TEMPLATE_224), atol=0.1)
    assert interocular_px(model, 224) == pytest.approx(float((points[0] - points[1]).norm()), rel=1e-5)


def test_the_error_in_percent_does_not_depend_on_the_image_size(model, sampled):
    moved = sampled.clone()
    moved[:, TRANSLATION.start] += 0.05
    percents = []
    for size in (112, 224):
        points = landmarks_image(model, moved, size), landmarks_image(model, sampled, size)
        errors = landmark_errors(*points, interocular_px(model, size))
        assert (errors["landmark_px"] > 0).all()
        percents.append(errors["landmark_nme"])
    assert torch.allclose(*percents, rtol=1e-3)


def test_a_shift_by_the_eye_distance_is_a_hundred_percent(model, sampled):
    points = landmarks_image(model, sampled, 112)
    shift = torch.tensor([interocular_px(model, 112), 0.0])
    errors = landmark_errors(points + shift, points, interocular_px(model, 112))
    assert errors["landmark_nme"].tolist() == pytest.approx([100.0] * len(sampled), rel=1e-4)
