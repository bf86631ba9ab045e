"""UV maps of the face and of the whole head."""

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from torch import Tensor

from leanface.face.coefficients import split
from leanface.face.morphable_model import MorphableModel
from leanface.face.uv_layout import UvLayout, across_seams
from leanface.face.uv_map import UvMap
from leanface.synthesis.synthesis import sample_coefficients

SIZE = 512


@pytest.fixture(scope="module", params=[False, True], ids=["face", "head"])
def uv_map(request: pytest.FixtureRequest, model: MorphableModel) -> UvMap:
    return UvMap(model, SIZE, whole_head=request.param)


@pytest.fixture(scope="module")
def coefficients(model: MorphableModel) -> Tensor:
    return sample_coefficients(model, 2, torch.Generator().manual_seed(0))


def at_vertices(uv_map: UvMap, sampled: Tensor) -> Tensor:
    """Bilinear look-up of a map (B,size,size,C) where its own vertices lie: (B,V,C)."""
    grid = (uv_map.pixel + 0.5) / uv_map.size * 2 - 1
    grid = grid.expand(len(sampled), 1, -1, 2)
    found = F.grid_sample(sampled.permute(0, 3, 1, 2), grid, mode="bilinear", align_corners=False)
    return found[:, :, 0].transpose(1, 2)


def test_the_map_holds_every_triangle_of_its_region_in_the_models_winding(model: MorphableModel) -> None:
    inside = model.face_mask[model.triangles].all(-1)
    for uv_map, expected in ((UvMap(model, 64), model.triangles[inside]), (UvMap(model, 64, True), model.triangles)):
        found = uv_map.vertex[uv_map.triangles]
        assert {tuple(row) for row in found.tolist()} == {tuple(row) for row in expected.tolist()}


def test_the_map_holds_a_vertexs_own_values_where_the_vertex_lies(uv_map: UvMap, coefficients: Tensor) -> None:
    parts = split(coefficients)
    whole = (~uv_map.mask).float()[None, ..., None].expand(2, -1, -1, 1)
    inside = at_vertices(uv_map, whole)[0, :, 0] == 0  # all four neighbors show the surface
    assert inside.float().mean() > 0.8
    model, vertex = uv_map.model, uv_map.vertex
    for sampled, values, tolerance in (
        (uv_map.position(coefficients), model.vertices(parts.identity, parts.expression), 0.01),  # 1 mm
        (uv_map.albedo(coefficients), model.albedo(parts.albedo), 0.02),  # 5 levels
    ):
        error = (at_vertices(uv_map, sampled) - values[:, vertex]).norm(dim=-1)[:, inside]
        assert error.median() < tolerance / 10
        # Folds of ears and mouth and the backs of teeth are finer than pixels.
        assert error.quantile(0.95) < tolerance


def test_a_triangle_across_a_seam_has_two_corners_in_their_places(model: MorphableModel) -> None:
    uv, triangles, mean = (each.numpy() for each in (model.uv, model.triangles, model.mean_vertices))
    layout, torn = UvLayout(uv, triangles, mean, SIZE), across_seams(uv, triangles, mean)
    places = (uv - uv.min(0)) / np.ptp(uv, axis=0) * (SIZE - 1) * [1, -1] + [0, SIZE - 1]
    found, expected = layout.pixel[layout.triangles[-torn.sum() :]], places[triangles[torn]]
    assert (np.isclose(found, expected, atol=1e-2).all(-1).sum(1) == 2).all()
    assert ((found[:, 0] == found[:, 1]) | (found[:, 0] == found[:, 2])).all(-1).all()
    sides = np.linalg.norm(found - np.roll(found, 1, axis=1), axis=-1)
    assert sides.max() < 0.1 * SIZE


def test_texture_coordinates_come_back_from_the_map(model: MorphableModel) -> None:
    uv_map = UvMap(model, SIZE)
    where = torch.zeros(model.vertex_count, 2).index_copy_(0, uv_map.vertex, uv_map.pixel)
    rows, columns = uv_map.mask.nonzero(as_tuple=True)
    found = uv_map.sample(where[None])[0, rows, columns]
    torch.testing.assert_close(found, torch.stack([columns, rows], -1).float(), atol=1e-2, rtol=0)


def test_the_region_fills_the_map(uv_map: UvMap) -> None:
    assert uv_map.pixel.amin(0).tolist() == pytest.approx([0, 0], abs=1e-3)
    assert uv_map.pixel.amax(0).tolist() == pytest.approx([SIZE - 1, SIZE - 1], abs=1e-3)
    assert uv_map.mask.float().mean() > 0.7


def test_every_pixel_between_a_triangles_corners_is_covered(uv_map: UvMap) -> None:
    """Where a triangle's center rounds to a pixel inside it, that pixel shows the surface there, not another place."""
    corners = uv_map.pixel[uv_map.triangles]
    a, b, c = corners.unbind(1)
    area = (b - a)[:, 0] * (c - a)[:, 1] - (c - a)[:, 0] * (b - a)[:, 1]
    large = area < -8  # seen from outside, and large enough to hold its center's pixel
    center = corners.mean(1)[large].round().long()
    assert large.sum() > 500
    assert uv_map.mask[center[:, 1], center[:, 0]].float().mean() > 0.995
    mean = uv_map.model.mean_vertices
    shown = uv_map.sample(mean[None])[0, center[:, 1], center[:, 0]]
    expected = mean[uv_map.vertex[uv_map.triangles[large]]].mean(1)
    assert ((shown - expected).norm(dim=-1) < 0.05).float().mean() > 0.99


def test_no_triangle_spans_the_map(uv_map: UvMap) -> None:
    corners = uv_map.pixel[uv_map.triangles] / SIZE
    assert (corners.amax(1) - corners.amin(1)).max() < 0.1


def test_outside_the_mask_is_nothing_and_inside_is_skin(uv_map: UvMap) -> None:
    albedo = uv_map.albedo(torch.zeros(1, 257))
    assert (albedo[:, ~uv_map.mask] == 0).all()
    assert (albedo[:, uv_map.mask] > 0).any(-1).all()
