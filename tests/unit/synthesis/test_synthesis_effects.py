"""Each effect changes what it should and leaves the rest alone."""

import pytest
import torch
from torch import Tensor

from leanface.face.coefficients import Coefficients, split
from leanface.face.lighting import irradiance
from leanface.face.morphable_model import MorphableModel
from leanface.face.render import Renderer
from leanface.synthesis import accessories, appearance
from leanface.synthesis.accessories import accessorise, wardrobe_of
from leanface.synthesis.appearance import dress, shine, strongest_lamp
from leanface.synthesis.draws import Random, Range
from leanface.synthesis.photography import background, compress, photograph
from leanface.synthesis.surface import REGIONS, surface_of


def random(seed: int = 0) -> Random:
    return Random(torch.Generator().manual_seed(seed))


def mean_head(model: MorphableModel, count: int = 1) -> tuple[Tensor, Tensor]:
    return model.mean_vertices.expand(count, -1, -1), model.mean_albedo.expand(count, -1, -1)


def parts(count: int = 1, **changes: Tensor) -> Coefficients[Tensor]:
    zero = split(torch.zeros(count, 257))
    lighting = torch.zeros(count, 9, 3)
    lighting[:, 0] = 1.0
    return zero._replace(lighting=lighting.flatten(1))._replace(**changes)


def only(monkeypatch: pytest.MonkeyPatch, module: object, table: str, **wanted: Range) -> None:
    """Turn off all of a table's entries but some."""
    old = getattr(module, table)
    entries = {name.replace("_", " "): strength for name, strength in wanted.items()}
    off: Range = (0.0, 0.0, 0.0)

    def entry(name: str, value: tuple) -> tuple:
        strength = entries.get(name, off)
        return strength if isinstance(value[0], float) else (value[0], strength, value[2])

    assert entries.keys() <= old.keys()
    monkeypatch.setattr(module, table, {name: entry(name, value) for name, value in old.items()})


@pytest.fixture
def plain(monkeypatch: pytest.MonkeyPatch) -> None:
    """No paint, no detail, no hair."""
    for table in ("TINTS", "PAINTS", "_SKIN", "_HAIR_KINDS", "_HEADWEAR_KINDS"):
        only(monkeypatch, appearance, table)


def test_regions_lie_where_their_names_say(model: MorphableModel) -> None:
    surface = surface_of(model)
    centers = {name: (surface.region(name) @ model.mean_vertices) / surface.region(name).sum() for name in REGIONS}
    eyes, nose, mouth = model.mean_vertices[model.landmarks[0]], *model.mean_vertices[model.landmarks[2:4]]
    order = ("forehead_lines", "brows", "lids", "under_eyes", "cheeks", "moustache", "lips", "goatee")
    heights = [float(centers[name][1]) for name in order]
    assert heights == sorted(heights, reverse=True)
    assert abs(centers["eyes"][1] - eyes[1]) < 0.05
    assert (centers["nose"] - nose).norm() < 0.15
    assert abs(centers["lips"][1] - mouth[1]) < 0.06
    assert all(abs(center[0]) < 0.05 for center in centers.values())  # left and right alike
    assert surface.regions.min() >= 0
    assert surface.regions.max() <= 1.3


def test_light_is_blocked_by_the_head_itself(model: MorphableModel) -> None:
    surface = surface_of(model)
    from_left = int(surface.lights[:, 0].argmin())
    cheeks = surface.region("cheeks") > 0.5
    left, right = model.mean_vertices[:, 0] < -0.3, model.mean_vertices[:, 0] > 0.3
    assert surface.lit[from_left, cheeks & left].mean() > 0.7
    assert surface.lit[from_left, cheeks & right].mean() < 0.3
    sockets = surface.region("skin") * (surface.region("eye_rims") > 0.5) > 0
    assert surface.openness[surface.region("nose") > 0.7].mean() > surface.openness[sockets].mean() + 0.02


@pytest.mark.usefixtures("plain")
def test_a_plain_head_stays_as_it_is(model: MorphableModel) -> None:
    vertices, albedo = mean_head(model, 2)
    dressed = dress(random(), surface_of(model), vertices, albedo, 1.0)
    assert torch.equal(dressed.vertices, vertices)
    torch.testing.assert_close(dressed.albedo, albedo, atol=1e-6, rtol=0)


@pytest.mark.usefixtures("plain")
@pytest.mark.parametrize(
    ("table", "name", "where", "elsewhere"),
    [
        ("PAINTS", "full beard", "jaw", "eyes"),
        ("PAINTS", "lipstick", "lips", "forehead_lines"),
        ("PAINTS", "brows", "brows", "lips"),
        ("TINTS", "blush", "cheeks", "forehead_lines"),
        ("TINTS", "dark circles", "under_eyes", "lips"),
        ("_SKIN", "freckles", "cheeks", "jaw"),
        ("_HAIR_KINDS", "worn", None, "nose"),
        ("_HEADWEAR_KINDS", "hat", None, "nose"),
        ("_HEADWEAR_KINDS", "scarf", None, "nose"),
    ],
)
def test_a_layer_changes_its_region_only(
    model: MorphableModel, monkeypatch: pytest.MonkeyPatch, table: str, name: str, where: str | None, elsewhere: str
) -> None:
    only(monkeypatch, appearance, table, **{name.replace(" ", "_"): (1.0, 0.9, 0.9) if where else (1.0, 1.0, 1.0)})
    surface = surface_of(model)
    vertices, albedo = mean_head(model, 8)
    dressed = dress(random(), surface, vertices, albedo, 1.0)
    change = (dressed.albedo - albedo).abs().mean((0, 2)) + (dressed.vertices - vertices).norm(dim=-1).mean(0)
    there = surface.region(where) > 0.5 if where else model.mean_vertices[:, 1] > 1.2
    alone = surface.region(elsewhere) > 0.5
    assert change[there].mean() > 0.005
    assert change[alone].mean() < 0.1 * change[there].mean()
    for part in ("eyes", "teeth"):
        assert change[surface.region(part) > 0].max() < 1e-6


def test_amount_zero_wears_nothing(model: MorphableModel) -> None:
    vertices, albedo = mean_head(model, 4)
    dressed = dress(random(), surface_of(model), vertices, albedo, 0.0)
    torch.testing.assert_close(dressed.albedo, albedo, atol=1e-6, rtol=0)
    assert torch.equal(dressed.vertices, vertices)


def test_the_strongest_lamp_is_found() -> None:
    direction = torch.nn.functional.normalize(torch.tensor([[0.5, 0.3, 0.8]]), dim=1)
    bands = torch.zeros(1, 9, 3)
    bands[:, 0], bands[:, 3], bands[:, 1], bands[:, 2] = 0.5, -direction[0, 0], -direction[0, 1], direction[0, 2]
    lamp = strongest_lamp(bands.flatten(1))
    torch.testing.assert_close(lamp.direction, direction)
    torch.testing.assert_close(lamp.color[:, None], irradiance(direction[:, None], bands.flatten(1)))


def test_shadows_darken_and_highlights_brighten(model: MorphableModel) -> None:
    lighting = torch.zeros(4, 9, 3)
    lighting[:, 0], lighting[:, 2] = 0.5, 0.5
    surface = surface_of(model)
    answer = shine(random(), surface, surface.normals.expand(4, -1, -1), parts(4, lighting=lighting.flatten(1)), 1.0)
    assert 0 <= answer.shadow.min() <= answer.shadow.max() <= 1 + 1e-5
    assert answer.highlight.min() >= 0
    nose, back = surface.region("nose") > 0.8, surface.normals[:, 2] < -0.5
    assert answer.highlight[:, nose].mean() > 10 * answer.highlight[:, back].mean()


def test_accessories_face_outwards_and_belong_to_the_mesh(model: MorphableModel) -> None:
    vertices, albedo = mean_head(model)
    worn = accessorise(random(), model, vertices, albedo, parts(), 1.0)
    triangles = wardrobe_of(model).triangles
    assert int(triangles.max()) + 1 == model.vertex_count + worn.vertices.shape[1]
    pieces = [*accessories._hand_pieces(), *accessories._microphone_pieces(), accessories._lathe(accessories._BODY)]
    for piece in pieces:
        corners = torch.from_numpy(piece.points - piece.points.mean(0))[torch.from_numpy(piece.triangles.copy())]
        assert torch.linalg.det(corners).sum() > 0  # six times the volume


@pytest.mark.parametrize("kind", ["glasses", "sunglasses", "microphone", "hand"])
def test_a_thing_is_seen_when_present_only(model: MorphableModel, monkeypatch: pytest.MonkeyPatch, kind: str) -> None:
    vertices, albedo = mean_head(model, 6)
    renderer, triangles = Renderer(model, 96), wardrobe_of(model).triangles
    eyes = model.mean_vertices[model.landmarks[:2]] * 1015 * 96 / 224 / 10
    drawn: list[Tensor] = []
    for wanted in ({}, {kind: (1.0, 1.0, 1.0)}):
        only(monkeypatch, accessories, "_KINDS", **wanted)
        worn = accessorise(random(4), model, vertices, albedo, parts(6), 1.0)
        colors = torch.cat([torch.zeros_like(albedo), torch.ones_like(worn.albedo)], 1)
        drawn.append(renderer.draw(torch.cat([vertices, worn.vertices], 1), colors, triangles).image[:, 0])
    difference = drawn[1] - drawn[0]
    seen = difference.sum((1, 2))
    assert drawn[0][:, :62].sum() == 0  # clothes only, and those below the mouth
    assert (seen > 20).float().mean() > 0.6
    if kind == "sunglasses":
        for x, y in eyes[:, :2].tolist():
            assert (difference[:, round(47.5 - y), round(47.5 + x)] == 1).all()
    if kind == "glasses":
        assert (difference[:, 20:56].sum((1, 2)) > 0.9 * seen).all()


def test_backgrounds_differ_and_are_valid() -> None:
    images = background(random(), 16, 64)
    assert images.shape == (16, 3, 64, 64)
    assert 0 <= images.min() <= images.max() <= 1
    assert images.mean((1, 2, 3)).std() > 0.1


def test_an_undisturbed_camera_changes_next_to_nothing() -> None:
    image = torch.nn.functional.interpolate(torch.rand(2, 3, 8, 8), size=64, mode="bicubic").clamp(0.1, 0.9)
    torch.testing.assert_close(photograph(random(), image, 0.0), image, atol=3e-3, rtol=0)


def test_compression_is_as_coarse_as_asked() -> None:
    image = torch.rand(3, 3, 32, 32)
    error = (compress(image, torch.tensor([0.0, 0.02, 0.1])) - image).square().mean((1, 2, 3)).sqrt()
    assert error[0] < 1e-3 < error[1] < error[2]
