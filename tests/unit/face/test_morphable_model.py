"""The packaged face, its rendering and its UV maps."""

from pathlib import Path

import numpy as np
import pytest
import torch

from leanface.errors import ArtifactError
from leanface.face.morphable_model import MorphableModel, load_morphable_model
from leanface.face.render import Renderer
from leanface.face.uv_map import UvMap
from leanface.paths import PACKAGED_MORPHABLE_MODEL
from leanface.synthesis.synthesis import sample_coefficients


def faces(model: MorphableModel, count: int) -> torch.Tensor:
    return sample_coefficients(model, count, torch.Generator().manual_seed(0))


def test_zero_coefficients_give_the_mean_face(model: MorphableModel) -> None:
    torch.testing.assert_close(model.vertices(torch.zeros(1, 80), torch.zeros(1, 64))[0], model.mean_vertices)
    torch.testing.assert_close(model.albedo(torch.zeros(1, 80))[0], model.mean_albedo.clamp(0, 1))


def test_shape_is_linear_in_its_coefficients(model: MorphableModel) -> None:
    a, b, none = torch.randn(1, 80), torch.randn(1, 80), torch.zeros(1, 64)
    both = model.vertices(a + b, none) - model.mean_vertices
    each = model.vertices(a, none) + model.vertices(b, none) - 2 * model.mean_vertices
    torch.testing.assert_close(both, each, atol=1e-5, rtol=0)


def test_the_model_moves_with_to_and_saves_nothing(model: MorphableModel) -> None:
    assert model.state_dict() == {}
    assert not list(model.parameters())


def test_missing_truncated_and_foreign_files_are_refused(tmp_path: Path) -> None:
    with pytest.raises(ArtifactError, match="missing"):
        load_morphable_model(tmp_path / "none.npz")
    cut = tmp_path / "cut.npz"
    cut.write_bytes(PACKAGED_MORPHABLE_MODEL.read_bytes()[:100_000])
    with pytest.raises(ArtifactError, match="rebuild it"):
        load_morphable_model(cut)
    foreign = tmp_path / "foreign.npz"
    np.savez(foreign, format_version=7)
    with pytest.raises(ArtifactError, match="format 7"):
        load_morphable_model(foreign)


def test_faces_fill_the_frame_and_colors_stay_in_range(model: MorphableModel) -> None:
    rendering = Renderer(model, 64, supersample=2)(faces(model, 8))
    assert rendering.image.shape == (8, 3, 64, 64)
    assert 0 <= rendering.image.min() <= rendering.image.max() <= 1
    cover = rendering.alpha.mean((1, 2, 3))
    assert (cover > 0.25).all()
    assert (cover < 0.95).all()
    assert (rendering.image.amax(1, keepdim=True) <= rendering.alpha + 1e-5).all()  # premultiplied


def test_the_face_region_lies_inside_the_head(model: MorphableModel) -> None:
    renderer, coefficients = Renderer(model, 64), faces(model, 4)
    face, head = renderer.face_alpha(coefficients), renderer(coefficients).alpha > 0.5
    assert (face <= head).all()
    assert face.float().mean() > 0.1


def test_uv_maps_do_not_depend_on_pose_or_light(model: MorphableModel) -> None:
    uv, coefficients = UvMap(model, 48), faces(model, 2)
    moved = coefficients.clone()
    moved[:, 224:] += 0.1
    assert torch.equal(uv.position(coefficients), uv.position(moved))
    assert torch.equal(uv.albedo(coefficients), uv.albedo(moved))
    assert uv.mask.float().mean() > 0.5
    assert (uv.albedo(coefficients)[:, ~uv.mask] == 0).all()
    assert (uv.albedo(coefficients)[:, uv.mask] > 0).any(-1).all()
