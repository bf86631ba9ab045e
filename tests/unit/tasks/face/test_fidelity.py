import numpy as np
import pytest
import torch

from leanface.face.coefficients import ALBEDO, ANGLES, EXPRESSION, IDENTITY, LIGHTING, TRANSLATION
from leanface.face.morphable_model import MorphableModel, load_morphable_model
from leanface.face.render import Renderer
from leanface.face.uv_map import UvMap
from leanface.synthesis.synthesis import population
from leanface.tasks.face.fidelity import position_range_dm, render_similarity, uv_similarity


@pytest.fixture(scope="module")
def model() -> MorphableModel:
    return load_morphable_model()


@pytest.fixture(scope="module")
def uv_map(model) -> UvMap:
    return UvMap(model, 64)


@pytest.fixture(scope="module")
def renderer(model) -> Renderer:
    return Renderer(model, 64)


@pytest.fixture(scope="module")
def faces(model) -> torch.Tensor:
    """Three faces that differ from the mean in shape and albedo."""
    mean, _ = population(model)
    faces = mean.expand(3, -1).clone()
    faces[:, :224] += 0.5 * torch.randn(3, 224, generator=torch.Generator().manual_seed(0))
    return faces


def changed(faces: torch.Tensor, part: slice, amount: float) -> torch.Tensor:
    noise = torch.randn(faces[:, part].shape, generator=torch.Generator().manual_seed(1))
    other = faces.clone()
    other[:, part] += amount * noise
    return other


def test_an_answer_is_wholly_like_itself(model, uv_map, renderer, faces):
    similarity = uv_similarity(model, uv_map, faces, faces) | render_similarity(renderer, faces, faces)
    for name, values in similarity.items():
        assert values.shape == (3,)
        assert values == pytest.approx(1.0 if name.startswith("ssim") else 0.0), name


def test_ssim_is_the_mean_of_texture_and_position(model, uv_map, faces):
    similarity = uv_similarity(model, uv_map, changed(faces, slice(0, 224), 0.5), faces)
    assert similarity["ssim"] == pytest.approx((similarity["ssim_texture"] + similarity["ssim_position"]) / 2)


@pytest.mark.parametrize(
    ("part", "moved", "kept"),
    [(IDENTITY, "position", "texture"), (EXPRESSION, "position", "texture"), (ALBEDO, "texture", "position")],
)
def test_shape_moves_the_position_map_and_albedo_the_texture(model, uv_map, faces, part, moved, kept):
    similarity = uv_similarity(model, uv_map, changed(faces, part, 0.5), faces)
    assert similarity[f"ssim_{kept}"] == pytest.approx(1.0)
    assert (similarity[f"mse_{kept}"] == 0).all()
    assert (similarity[f"ssim_{moved}"] < 1).all()
    assert (similarity[f"mse_{moved}"] > 0).all()


@pytest.mark.parametrize("part", [ANGLES, LIGHTING, TRANSLATION])
def test_pose_and_light_change_the_picture_but_not_the_maps(model, uv_map, renderer, faces, part):
    other = changed(faces, part, 0.1)
    assert uv_similarity(model, uv_map, other, faces)["ssim"] == pytest.approx(1.0)
    assert (render_similarity(renderer, other, faces)["ssim_render"] < 0.999).all()


@pytest.mark.parametrize("measure", ["ssim_texture", "ssim_position", "ssim_render", "ssim_face"])
def test_a_larger_change_is_less_alike(model, uv_map, renderer, faces, measure):
    similarity = [
        np.mean((uv_similarity(model, uv_map, other, faces) | render_similarity(renderer, other, faces))[measure])
        for other in (changed(faces, slice(0, 224), amount) for amount in (0.0, 0.2, 0.5, 1.0))
    ]
    assert similarity == sorted(similarity, reverse=True)
    assert similarity[-1] < similarity[0]


def test_a_face_out_of_sight_leaves_the_face_region_undefined(renderer, faces):
    gone = faces.clone()
    gone[:, TRANSLATION] = torch.tensor([50.0, 0.0, 0.0])
    similarity = render_similarity(renderer, faces, gone)
    assert np.isnan(similarity["ssim_face"]).all()
    assert np.isnan(similarity["mse_face"]).all()
    assert (similarity["mse"] > 0).all()


def test_two_empty_frames_prove_nothing(renderer, faces):
    gone = faces.clone()
    gone[:, TRANSLATION] = torch.tensor([50.0, 0.0, 0.0])
    assert all(np.isnan(values).all() for values in render_similarity(renderer, gone, gone).values())


def test_the_position_range_is_that_of_a_face(model):
    assert 1.0 < position_range_dm(model) < 3.0


def test_batches_do_not_change_the_result(model, uv_map, faces):
    many, other = faces.repeat(7, 1), changed(faces, slice(0, 224), 0.3).repeat(7, 1)
    whole = uv_similarity(model, uv_map, other, many)["ssim"]
    assert whole == pytest.approx(np.tile(uv_similarity(model, uv_map, other[:3], faces)["ssim"], 7))


def test_different_numbers_of_answers_are_refused(renderer, faces):
    with pytest.raises(ValueError, match="equal shapes"):
        render_similarity(renderer, faces, faces[:2])
