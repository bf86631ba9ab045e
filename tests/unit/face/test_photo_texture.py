"""Textures taken back from renders: there the true colors are known."""

import itertools
import sys
from typing import NamedTuple

import numpy as np
import pytest
import torch

from leanface.errors import ConfigError
from leanface.face import kernels
from leanface.face.camera import camera_from_model, image_from_camera
from leanface.face.coefficients import ANGLES, split
from leanface.face.continuation import RESIDUAL, Continuation, Graph
from leanface.face.geometry import METERS_PER_DM
from leanface.face.jpeg import encode_jpeg
from leanface.face.lighting import irradiance, vertex_normals
from leanface.face.morphable_model import MorphableModel
from leanface.face.photo_texture import Lighting, PhotoTexture
from leanface.face.photo_texture_torch import TorchTexture
from leanface.face.rasterize import draw
from leanface.face.symmetry import mirror_images
from leanface.face.texture_runs import Runs
from leanface.face.uv_map import UvMap
from leanface.synthesis.synthesis import population

PHOTO_PX = 512
TEXTURE_PX = 256
BLUE = np.array([20, 40, 250], np.uint8)
"""Of the background, which no texture may show."""


class Scene(NamedTuple):
    """A head whose colors are stripes, its photo, and all that `PhotoTexture.paint` asks for."""

    photo: np.ndarray
    vertices_photo: np.ndarray
    vertices_camera: np.ndarray
    normals: np.ndarray
    lighting: Lighting
    colors: np.ndarray


def scene(model: MorphableModel, yaw_rad: float, dark: np.ndarray | None = None) -> Scene:
    """See a head turned by so much, with some vertices at half the brightness."""
    coefficients = population(model)[0][None].clone()
    coefficients[:, ANGLES] = torch.tensor([0.0, yaw_rad, 0.0])
    parts = split(coefficients)
    camera = camera_from_model(
        model.vertices(parts.identity, parts.expression), parts.angles_rad, parts.translation
    ).contiguous()
    normals = vertex_normals(camera, model.triangles)
    stripes = 0.5 + 0.2 * torch.sin(12 * model.mean_vertices[:, 1:2])
    colors = torch.cat([stripes + 0.2, stripes, stripes - 0.2], 1)
    if dark is not None:
        colors[torch.from_numpy(dark)] /= 2
    # Smaller, so that the whole head is in the picture.
    image = image_from_camera(camera, PHOTO_PX)
    image[..., :2] = (image[..., :2] - PHOTO_PX / 2) * 0.6 + PHOTO_PX / 2
    drawn = draw(image, colors[None], model.triangles, PHOTO_PX)[0].permute(1, 2, 0).numpy()
    photo = drawn[..., :3] * 255 + BLUE * (1 - drawn[..., 3:])
    lighting = Lighting(np.full_like(colors.numpy(), 0.5), irradiance(normals, parts.lighting)[0].numpy())
    image[..., 2] *= 10  # in 1/m from here on
    arrays = (image[0].numpy(), camera[0].numpy() * METERS_PER_DM, normals[0].numpy(), lighting, colors.numpy())
    return Scene(photo.round().astype(np.uint8), *arrays)


@pytest.fixture(scope="module")
def painter(model: MorphableModel) -> PhotoTexture:
    return PhotoTexture(model.uv.numpy(), model.triangles.int().numpy(), model.mean_vertices.numpy())


@pytest.fixture(scope="module")
def uv_map(model: MorphableModel) -> UvMap:
    return UvMap(model, TEXTURE_PX, whole_head=True)


@pytest.mark.parametrize("yaw_rad", [0.0, 0.6])
def test_what_the_photo_shows_is_on_the_texture(
    model: MorphableModel, painter: PhotoTexture, uv_map: UvMap, yaw_rad: float
) -> None:
    made = scene(model, yaw_rad)
    weights = painter.visibility.weights(made.photo.shape[:2], *made[1:4])
    texture = painter.paint(uv_map.layout, *made[:5])
    assert (weights == 1).mean() > 0.1
    shown = uv_map.sample(torch.from_numpy(weights)[None, :, None])[0, ..., 0].numpy() > 0.999
    truth = uv_map.sample(torch.from_numpy(made.colors)[None])[0].numpy() * 255
    assert np.abs(texture[shown] - truth[shown]).mean() < 3


def test_the_far_side_is_the_models_color_as_the_photo_would_have_it(
    model: MorphableModel, painter: PhotoTexture, uv_map: UvMap
) -> None:
    """The model is gray, the photo's head reddish: so is what no photo shows, and nowhere blue as its background."""
    made = scene(model, 0.6)
    texture = painter.paint(uv_map.layout, *made[:5]).astype(int)
    back = uv_map.sample((model.mean_vertices[:, 2:] < -0.8).float()[None])[0, ..., 0].numpy() > 0.5
    red, green, blue = texture[back].T
    assert (red > green).mean() > 0.95
    assert (green > blue).mean() > 0.95


def test_hidden_and_averted_vertices_weigh_nothing_and_weights_fade(
    model: MorphableModel, painter: PhotoTexture
) -> None:
    made = scene(model, 0.0)
    weights = painter.visibility.weights(made.photo.shape[:2], *made[1:4])
    skin = ~painter.visibility.openings
    assert (weights[skin & (made.normals[:, 2] < 0)] == 0).all()
    # The chin covers the upper neck, which yet faces the camera.
    assert ((weights == 0) & skin & (made.normals[:, 2] > 0.6)).any()
    edges = weights[model.triangles.numpy()][skin[model.triangles.numpy()].all(1)]
    assert np.quantile(np.ptp(edges, axis=1), 0.99) < 0.5


def test_the_outline_weighs_nothing(model: MorphableModel, painter: PhotoTexture) -> None:
    """There the photo shows the background as soon as the shape is a little off."""
    made = scene(model, 0.0)
    weights = painter.visibility.weights(made.photo.shape[:2], *made[1:4])
    head = (made.photo != BLUE).any(-1)
    near = np.zeros_like(head)
    for shift in (-1, 1):
        near |= ~np.roll(head, shift, 0) | ~np.roll(head, shift, 1)
    column, row = made.vertices_photo[:, :2].round().astype(int).clip(0, PHOTO_PX - 1).T
    assert near[row, column].sum() > 100
    assert (weights[near[row, column]] == 0).all()


def test_eyes_and_open_mouths_are_as_the_photo_shows_them(model: MorphableModel, painter: PhotoTexture) -> None:
    """Where a part of a triangle shows in an opening, all its corners take the photo's colors; but for tiny gaps."""
    made = scene(model, 0.0)
    triangles = model.triangles.int().numpy()
    seen, _ = kernels.nearest_triangles(made.vertices_photo.astype(np.float32), triangles, PHOTO_PX)
    corners = triangles[np.unique(seen[seen >= 0])]
    within = corners[painter.visibility.openings[corners].all(1)]
    weights = painter.visibility.weights(made.photo.shape[:2], *made[1:4])
    assert len(within) > 100
    assert (weights[within] == 1).all(1).mean() > 0.9


@pytest.mark.parametrize("yaw_rad", [-0.6, 0.6])
def test_the_side_that_the_photo_does_not_show_mirrors_the_other(
    model: MorphableModel, painter: PhotoTexture, uv_map: UvMap, yaw_rad: float
) -> None:
    """Both cheeks have a dark patch, of which a turned head's photo shows one: the texture has both."""
    x, y, z = model.mean_vertices.numpy().T
    patch = (np.abs(x) > 0.55) & (np.abs(y) < 0.25) & (z > -0.6)
    plain, dark = scene(model, yaw_rad), scene(model, yaw_rad, patch)
    seen = painter.visibility.weights(plain.photo.shape[:2], *plain[1:4])
    sides = [patch & (x < 0), patch & (x > 0)]
    shown, hidden = sorted(sides, key=lambda side: -seen[side].mean())
    assert seen[shown].max() > 0.9
    assert seen[hidden].max() == 0
    where = uv_map.sample(torch.from_numpy(hidden).float()[None, :, None])[0, ..., 0].numpy() > 0.99
    before, after = (painter.paint(uv_map.layout, *made[:5])[where].mean() for made in (plain, dark))
    assert after < 0.9 * before


def test_vertices_pair_with_their_mirror_images(model: MorphableModel) -> None:
    mean = model.mean_vertices.numpy()
    mirrored = mirror_images(mean)
    np.testing.assert_array_equal(mirrored[mirrored], np.arange(len(mean)))
    np.testing.assert_allclose(mean[mirrored] * [-1, 1, 1], mean, atol=0.005)


def test_a_face_at_the_photos_edge_keeps_clear_of_it(model: MorphableModel, painter: PhotoTexture) -> None:
    made = scene(model, 0.0)
    moved = made.vertices_photo.copy()
    moved[:, 0] += PHOTO_PX / 2
    weights = painter.visibility.weights(made.photo.shape[:2], moved, made.vertices_camera, made.normals)
    assert (weights[moved[:, 0] > PHOTO_PX - 1] == 0).all()
    assert weights.max() > 0.9


def test_taking_the_light_out_divides_by_it(model: MorphableModel, painter: PhotoTexture, uv_map: UvMap) -> None:
    made = scene(model, 0.0)
    half = Lighting(made.lighting.albedo, np.full_like(made.lighting.irradiance, 0.5))
    plain = painter.paint(uv_map.layout, *made[:4], half).astype(int)
    delit = painter.paint(uv_map.layout, *made[:4], half, delight=True)
    mask = uv_map.mask.numpy() & (plain.max(-1) < 125)
    assert np.abs(2 * plain[mask] - delit[mask]).max() <= 2


def test_a_photo_finer_than_the_texture_is_averaged(model: MorphableModel, painter: PhotoTexture) -> None:
    """A checkerboard of single pixels turns gray instead of a moire."""
    made = scene(model, 0.0)
    board = (np.indices(made.photo.shape[:2]).sum(0) % 2 * 255).astype(np.uint8)
    uv_map = UvMap(model, 64, whole_head=True)
    texture = painter.paint(uv_map.layout, np.repeat(board[..., None], 3, 2), *made[1:5])
    weights = torch.from_numpy(painter.visibility.weights(made.photo.shape[:2], *made[1:4]))
    shown = uv_map.sample(weights[None, :, None])[0, ..., 0].numpy() > 0.999
    assert np.abs(texture[shown].astype(int) - 128).max() < 20


def test_a_photo_without_the_face_in_it_gives_the_model_alone(
    model: MorphableModel, painter: PhotoTexture, uv_map: UvMap
) -> None:
    made = scene(model, 0.0)
    away = made.vertices_photo + np.array([10_000, 0, 0], np.float32)
    texture = painter.paint(uv_map.layout, made.photo, away, *made[2:5])
    lit = torch.from_numpy(np.clip(made.lighting.albedo * made.lighting.irradiance, 0, 1))
    expected = uv_map.sample(lit[None])[0].numpy() * 255
    mask = uv_map.mask.numpy()
    assert np.quantile(np.abs(texture[mask] - expected[mask]), 0.99) <= 1.5


def test_too_large_a_texture_is_refused(model: MorphableModel, painter: PhotoTexture) -> None:
    made = scene(model, 0.0)
    with pytest.raises(ConfigError, match="at most 4096"):
        painter.paint(UvMap(model, 4097, whole_head=True).layout, *made[:5])


def test_painting_is_what_a_look_at_each_texel_gives(
    model: MorphableModel, painter: PhotoTexture, uv_map: UvMap
) -> None:
    """Gray stays gray, however it is weighed; a ramp is where each texel's point of the surface is seen."""
    made = scene(model, 0.3)
    gray = np.full_like(made.photo, 128)
    lighting = Lighting(np.full_like(made.lighting.albedo, 128 / 255), np.ones_like(made.lighting.irradiance))
    weights = painter.visibility.weights(gray.shape[:2], *made[1:4])
    ramp = np.broadcast_to(np.linspace(0, 255, PHOTO_PX)[None, :, None], gray.shape).round().astype(np.uint8)
    texture = painter.paint(uv_map.layout, gray, *made[1:4], lighting)
    assert np.abs(texture.astype(int) - 128).max() <= 1
    triangle, barycentric = uv_map.layout.fragments
    corners = uv_map.layout.vertex[uv_map.layout.triangles[triangle]]
    places = (made.vertices_photo[corners, 0] * barycentric).sum(-1)
    shown = (weights[corners].min(-1) == 1) & uv_map.mask.numpy()
    textured = painter.paint(uv_map.layout, ramp, *made[1:4], lighting)
    expected = np.interp(places[shown], np.arange(PHOTO_PX), ramp[0, :, 0])
    assert shown.mean() > 0.05
    assert np.abs(textured[shown, 0] - expected).max() <= 1


@pytest.mark.parametrize("size", [1, 7, 64])
def test_spreading_keeps_what_is_known_and_fills_the_rest_from_it(size: int) -> None:
    generator = np.random.default_rng(0)
    texture = generator.integers(100, 120, (size, size, 3)).astype(np.uint8)
    mask = generator.random((size, size)) < 0.1
    mask[0, 0] = True
    filled = np.where(mask[..., None], texture, 0).astype(np.uint8)
    Runs.of(np.where(mask, 5, -1)).spread(filled)
    np.testing.assert_array_equal(filled[mask], texture[mask])
    assert filled.min() >= 100
    Runs.of(np.full((size, size), -1)).spread(filled)  # nothing to take colors from
    np.testing.assert_array_equal(filled[mask], texture[mask])


def test_runs_say_what_each_texel_shows(uv_map: UvMap) -> None:
    runs = uv_map.layout.painting.runs
    row = np.repeat(np.arange(TEXTURE_PX), np.diff(runs.rows))
    lengths = np.diff(np.append(row * TEXTURE_PX + runs.left, TEXTURE_PX**2))
    assert (lengths > 0).all()
    shown = np.repeat(runs.shown, lengths).reshape(TEXTURE_PX, TEXTURE_PX)
    mask = uv_map.mask.numpy()
    assert ((shown >= 0) == mask).mean() > 0.9999
    assert mask.ravel()[~shown[shown < 0]].mean() > 0.9999  # a color comes from the surface


def test_spans_are_the_runs_of_each_triangle(uv_map: UvMap) -> None:
    """Of all triangles that are shown, numbered by their first rows."""
    painting = uv_map.layout.painting
    shown = np.full((TEXTURE_PX, TEXTURE_PX), -1)
    for triangle, (first, end) in enumerate(itertools.pairwise(painting.spans.starts)):
        for row, left, right in painting.spans.places[first:end]:
            shown[row, left:right] = triangle
    runs = painting.runs
    row = np.repeat(np.arange(TEXTURE_PX), np.diff(runs.rows))
    lengths = np.diff(np.append(row * TEXTURE_PX + runs.left, TEXTURE_PX**2))
    np.testing.assert_array_equal(shown.ravel(), np.repeat(runs.shown, lengths).clip(-1))
    triangles, first = np.unique(shown[shown >= 0], return_index=True)
    assert len(triangles) == len(painting.triangles)
    assert (np.diff(first) > 0).all()


def test_continuation_solves_its_equation() -> None:
    """Against a dense solution, on a grid of which a corner is known."""
    side = 24
    index = np.arange(side * side).reshape(side, side)
    across, down = np.stack([index[:, :-1], index[:, 1:]], -1), np.stack([index[:-1], index[1:]], -1)
    pairs = np.concatenate([across.reshape(-1, 2), down.reshape(-1, 2)])
    weights = np.zeros((side, side), np.float32)
    weights[:8, :8] = 1
    weights = weights.ravel()
    values = np.random.default_rng(0).normal(1, 0.1, (side * side, 3)).astype(np.float32)
    solved = Continuation(Graph.of(pairs, side * side), 2.0).solve(values, weights, 0.004)
    laplacian = np.zeros((side * side, side * side))
    np.add.at(laplacian, (pairs[:, 0], pairs[:, 1]), -2.0)
    laplacian += laplacian.T
    laplacian -= np.diag(laplacian.sum(1))
    expected = np.linalg.solve(laplacian + np.diag(weights + 0.004), weights[:, None] * values)
    assert np.abs(solved - expected).max() < 2 * RESIDUAL
    assert np.ptp(expected) > 0.1


@pytest.mark.parametrize(("yaw_rad", "delight", "size"), [(0.0, False, 256), (0.6, True, 256), (-0.4, False, 64)])
def test_pytorch_paints_the_same(
    model: MorphableModel, painter: PhotoTexture, yaw_rad: float, delight: bool, size: int
) -> None:
    made = scene(model, yaw_rad)
    layout = UvMap(model, size, whole_head=True).layout  # of 64 texels: the photo is averaged first
    expected = painter.paint(layout, *made[:5], delight=delight).astype(int)
    painted = TorchTexture(painter, "cpu").paint(layout, *made[:5], delight=delight)
    difference = np.abs(painted - expected)
    assert difference.mean() < 0.6
    assert difference.max() <= 8
    # Where the photo shows all, nothing depends on how far the continuation got.
    weights = painter.visibility.weights(made.photo.shape[:2], *made[1:4])
    shown = layout.sample(weights[:, None])[..., 0] > 0.999
    assert shown.mean() > 0.1
    assert difference[shown].max() <= 1


def test_pytorch_paints_the_model_s_colors_where_no_photo_shows_any(
    model: MorphableModel, painter: PhotoTexture, uv_map: UvMap
) -> None:
    made = scene(model, 0.0)
    away = made.vertices_photo + np.array([9 * PHOTO_PX, 0, 0], np.float32)
    arguments = uv_map.layout, made.photo, away, *made[2:5]
    difference = np.abs(TorchTexture(painter, "cpu").paint(*arguments) - painter.paint(*arguments).astype(int))
    assert difference.max() <= 1


def test_too_little_memory_on_the_gpu_paints_on_the_cpu(
    model: MorphableModel, painter: PhotoTexture, uv_map: UvMap, monkeypatch: pytest.MonkeyPatch,
    caplog: pytest.LogCaptureFixture,
) -> None:  # fmt: skip
    def exhausted(*_: object) -> None:
        raise torch.OutOfMemoryError("CUDA out of memory")

    made, on_gpu = scene(model, 0.0), TorchTexture(painter, "cpu")
    monkeypatch.setattr(on_gpu, "_fill", exhausted)
    assert np.array_equal(on_gpu.paint(uv_map.layout, *made[:5]), painter.paint(uv_map.layout, *made[:5]))
    assert "too little free memory" in caplog.text


def test_without_nvjpeg_the_cpu_encodes(
    model: MorphableModel, painter: PhotoTexture, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(sys.modules, "torchvision.io", None)
    photo = scene(model, 0.0).photo
    assert TorchTexture(painter, "cpu").encode_jpeg(photo, 90) == encode_jpeg(photo, 90)
