"""The deployed decoder gives what the model, the camera and the reference normals give."""

import numpy as np
import pytest
import torch

from leanface.face.camera import camera_from_model
from leanface.face.coefficients import split
from leanface.face.decoder import Decoder
from leanface.face.geometry import METERS_PER_DM
from leanface.face.head_model import load_head_model
from leanface.face.lighting import vertex_normals
from leanface.face.morphable_model import MorphableModel, save_morphable_model
from leanface.synthesis.synthesis import sample_coefficients


@pytest.fixture(scope="module")
def decoder() -> Decoder:
    return Decoder(load_head_model())


def test_it_equals_the_model_the_camera_and_the_reference_normals(model: MorphableModel, decoder: Decoder) -> None:
    for coefficients in sample_coefficients(model, 3, torch.Generator().manual_seed(1)):
        parts = split(coefficients[None])
        vertices = model.vertices(parts.identity, parts.expression)
        mesh = decoder.decode(coefficients.numpy())
        np.testing.assert_allclose(mesh.vertices, vertices[0].numpy() * METERS_PER_DM, atol=2e-7)
        posed = camera_from_model(vertices, parts.angles_rad, parts.translation)
        np.testing.assert_allclose(mesh.vertices_camera, posed[0].numpy() * METERS_PER_DM, atol=3e-7)
        np.testing.assert_allclose(mesh.normals, vertex_normals(vertices, model.triangles)[0].numpy(), atol=1e-4)


def test_a_model_that_was_saved_again_decodes_alike(model: MorphableModel, decoder: Decoder, tmp_path) -> None:
    """Saved models have dense components and nothing left to subdivide, as the Basel Face Model's have."""
    save_morphable_model(model, tmp_path / "model.npz")
    dense = Decoder(load_head_model(tmp_path / "model.npz"))
    coefficients = sample_coefficients(model, 1, torch.Generator().manual_seed(2))[0].numpy()
    np.testing.assert_allclose(dense.decode(coefficients).vertices, decoder.decode(coefficients).vertices, atol=2e-7)


@pytest.mark.parametrize("wrong", [np.zeros(256, np.float32), np.zeros(257), np.zeros((1, 257), np.float32)])
def test_anything_but_one_float32_vector_is_refused(decoder: Decoder, wrong: np.ndarray) -> None:
    with pytest.raises(ValueError, match="expected float32"):
        decoder.decode(wrong)
