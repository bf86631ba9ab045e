"""Mesh files, read back."""

import json
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
import trimesh
from torch import Tensor

from leanface.errors import ArtifactError
from leanface.face.coefficients import split
from leanface.face.geometry import METERS_PER_DM
from leanface.face.lighting import vertex_normals
from leanface.face.mesh import FORMATS, HEADER, TextureFormat, encode_mesh
from leanface.face.morphable_model import MorphableModel
from leanface.face.usdz import require_usd
from leanface.face.uv_map import UvMap
from leanface.files import atomic_write
from leanface.synthesis.synthesis import sample_coefficients

SIZE = 256

OWN_FORMATS = [suffix for suffix in FORMATS if suffix != ".usdz"]
"""Without what is read by OpenUSD alone."""


@pytest.fixture(scope="module")
def coefficients(model: MorphableModel) -> Tensor:
    return sample_coefficients(model, 1, torch.Generator().manual_seed(3))[0]


@pytest.fixture(scope="module")
def uv_map(model: MorphableModel) -> UvMap:
    return UvMap(model, SIZE, whole_head=True)


@pytest.fixture(scope="module")
def texture() -> np.ndarray:
    """Color ramps: every place has its own color, and half-way between two places lies half-way between theirs."""
    y, x = np.mgrid[:SIZE, :SIZE]
    return np.stack([x, y, 128 + 0 * x], -1).astype(np.uint8)


def write(
    path: Path,
    uv_map: UvMap,
    coefficients: Tensor,
    texture: np.ndarray | None = None,
    texture_format: TextureFormat = "png",
) -> None:
    parts, model = split(coefficients[None]), uv_map.model
    vertices = model.vertices(parts.identity, parts.expression)
    normals = vertex_normals(vertices, model.triangles)[0].numpy()
    texture = np.zeros((SIZE, SIZE, 3), np.uint8) if texture is None else texture
    contents = encode_mesh(
        path.name, uv_map.layout, vertices[0].numpy() * METERS_PER_DM, normals, texture, texture_format
    )
    for name, content in contents.items():
        atomic_write(path.parent / name, content)


def read(path: Path) -> Any:
    """As a scene: `trimesh.load_mesh` would compute normals of its own."""
    (mesh,) = trimesh.load_scene(path, process=False).geometry.values()
    return mesh


def corners(mesh: Any, values: np.ndarray) -> np.ndarray:
    """Values of every triangle's corners: these are comparable even if a file splits or orders vertices its own way."""
    return np.asarray(values)[np.asarray(mesh.faces)]


@pytest.mark.parametrize("suffix", OWN_FORMATS)
def test_a_file_holds_the_models_own_shape_in_metres(
    suffix: str, uv_map: UvMap, coefficients: Tensor, tmp_path: Path
) -> None:
    write(tmp_path / f"face{suffix}", uv_map, coefficients)
    mesh, model, parts = read(tmp_path / f"face{suffix}"), uv_map.model, split(coefficients[None])
    vertices = model.vertices(parts.identity, parts.expression)
    normals = vertex_normals(vertices, model.triangles)
    triangles = uv_map.vertex[uv_map.triangles]
    np.testing.assert_allclose(corners(mesh, mesh.vertices), vertices[0, triangles].numpy() * 0.1, atol=1e-7)
    np.testing.assert_allclose(corners(mesh, mesh.vertex_normals), normals[0, triangles].numpy(), atol=1e-4)
    assert 0.15 < mesh.extents[1] < 0.3  # a head's height


@pytest.mark.parametrize("suffix", [".obj", ".glb"])
def test_textured_files_hold_the_texture_and_each_corners_place_in_it(
    suffix: str, uv_map: UvMap, coefficients: Tensor, texture: np.ndarray, tmp_path: Path
) -> None:
    filled = texture.copy()
    uv_map.layout.painting.runs.spread(filled)
    write(tmp_path / f"face{suffix}", uv_map, coefficients, filled)
    mesh = read(tmp_path / f"face{suffix}")
    material = mesh.visual.material
    image = np.asarray((material.image if suffix == ".obj" else material.baseColorTexture).convert("RGB"))
    mask = uv_map.mask.numpy()
    np.testing.assert_array_equal(image[mask], texture[mask])
    # Outside the mask, a color from inside it.
    assert (image[~mask, 2] == 128).all()
    uv = corners(mesh, mesh.visual.uv)
    pixel = np.stack([uv[..., 0] * SIZE, (1 - uv[..., 1]) * SIZE], -1) - 0.5
    np.testing.assert_allclose(pixel, uv_map.pixel[uv_map.triangles].numpy(), atol=1e-3)


def test_glb_puts_the_first_row_of_the_texture_at_v_0_and_is_not_metal(
    uv_map: UvMap, coefficients: Tensor, tmp_path: Path
) -> None:
    """By the file's own bytes: a reader that undoes a writer's mistake would hide it."""
    write(tmp_path / "face.glb", uv_map, coefficients)
    content = (tmp_path / "face.glb").read_bytes()
    length = int.from_bytes(content[12:16], "little")
    scene = json.loads(content[20 : 20 + length])
    assert scene["materials"][0]["pbrMetallicRoughness"]["metallicFactor"] == 0
    primitive = scene["meshes"][0]["primitives"][0]
    accessor = scene["accessors"][primitive["attributes"]["TEXCOORD_0"]]
    view = scene["bufferViews"][accessor["bufferView"]]
    start = 20 + length + 8 + view.get("byteOffset", 0) + accessor.get("byteOffset", 0)
    uv = np.frombuffer(content, np.float32, 2 * accessor["count"], start).reshape(-1, 2)
    np.testing.assert_allclose(uv * SIZE - 0.5, uv_map.pixel.numpy(), atol=1e-3)


def test_ply_has_the_textures_colors_at_the_vertices_and_no_seams(
    uv_map: UvMap, coefficients: Tensor, texture: np.ndarray, tmp_path: Path
) -> None:
    write(tmp_path / "face.ply", uv_map, coefficients, texture)
    mesh = read(tmp_path / "face.ply")
    assert len(mesh.vertices) == len(uv_map.vertex.unique())
    where = uv_map.pixel.numpy()
    inside = uv_map.mask.numpy()[tuple(where.round().astype(int).T[::-1])]
    colors = np.zeros((uv_map.model.vertex_count, 3))
    colors[uv_map.vertex.numpy()] = mesh_colors = np.column_stack([where, np.full(len(where), 128)])
    assert np.ptp(mesh_colors, axis=0)[0] > 200
    expected = colors[uv_map.vertex[uv_map.triangles].numpy()]
    found = corners(mesh, mesh.visual.vertex_colors[:, :3])
    # A vertex that was split has the color of one of its places.
    whole = inside[uv_map.triangles.numpy()] & ~_split(uv_map)[uv_map.triangles.numpy()]
    assert whole.mean() > 0.8
    np.testing.assert_allclose(found[whole], expected[whole], atol=1.5)


def _split(uv_map: UvMap) -> np.ndarray:
    """The map's vertices that share their model vertex with another."""
    count = uv_map.vertex.bincount()
    return (count[uv_map.vertex] > 1).numpy()


@pytest.mark.parametrize("suffix", [".obj", ".glb"])
def test_a_jpeg_texture_is_close_to_what_was_given(
    suffix: str, uv_map: UvMap, coefficients: Tensor, texture: np.ndarray, tmp_path: Path
) -> None:
    for texture_format in ("png", "jpeg"):
        write(tmp_path / texture_format / f"face{suffix}", uv_map, coefficients, texture, texture_format)
    material = read(tmp_path / "jpeg" / f"face{suffix}").visual.material
    image = material.image if suffix == ".obj" else material.baseColorTexture
    assert image.format == "JPEG"
    assert np.abs(np.asarray(image.convert("RGB")).astype(int) - texture).mean() < 3


@pytest.mark.parametrize("suffix", OWN_FORMATS)
def test_the_file_says_its_unit(suffix: str, uv_map: UvMap, coefficients: Tensor, tmp_path: Path) -> None:
    write(tmp_path / f"face{suffix}", uv_map, coefficients)
    header = (tmp_path / f"face{suffix}").read_bytes()[:200]
    assert header.startswith(b"glTF") or HEADER.encode() in header  # glTF is in meters by definition


def test_objs_material_leaves_the_texture_as_it_is(uv_map: UvMap, coefficients: Tensor, tmp_path: Path) -> None:
    write(tmp_path / "ann lee.obj", uv_map, coefficients)
    assert {file.name for file in tmp_path.iterdir()} == {"ann lee.obj", "ann lee.mtl", "ann lee_texture.png"}
    lines = dict(line.split(" ", 1) for line in (tmp_path / "ann lee.mtl").read_text().splitlines() if " " in line)
    assert [float(value) for value in lines["Kd"].split()] == [1, 1, 1]
    assert [float(value) for value in lines["Ks"].split()] == [0, 0, 0]
    assert read(tmp_path / "ann lee.obj").visual.material.image.size == (SIZE, SIZE)


@pytest.mark.parametrize("suffix", FORMATS)
def test_writing_again_gives_the_same_bytes_and_leaves_nothing_else(
    suffix: str, uv_map: UvMap, coefficients: Tensor, tmp_path: Path
) -> None:
    path = tmp_path / "new" / f"face{suffix}"
    write(path, uv_map, coefficients)
    first = {file.name: file.read_bytes() for file in path.parent.iterdir()}
    write(path, uv_map, coefficients)
    assert {file.name: file.read_bytes() for file in path.parent.iterdir()} == first


@pytest.mark.parametrize("suffix", FORMATS)
def test_a_failed_write_leaves_the_earlier_file(
    suffix: str, uv_map: UvMap, coefficients: Tensor, tmp_path: Path
) -> None:
    path = tmp_path / f"face{suffix}"
    write(path, uv_map, coefficients)
    before = {file.name: file.read_bytes() for file in tmp_path.iterdir()}
    with pytest.raises(ValueError, match="uint8"):
        write(path, uv_map, coefficients, np.zeros((SIZE, SIZE, 3)))
    with pytest.raises(ValueError, match="the UV layout's"):
        write(path, uv_map, coefficients, np.zeros((8, 8, 3), np.uint8))
    assert {file.name: file.read_bytes() for file in tmp_path.iterdir()} == before


def test_an_unwritable_folder_and_an_unknown_suffix_are_refused(
    uv_map: UvMap, coefficients: Tensor, tmp_path: Path
) -> None:
    (tmp_path / "file").write_text("no folder")
    with pytest.raises(ArtifactError, match="choose another place"):
        write(tmp_path / "file" / "face.ply", uv_map, coefficients)
    with pytest.raises(ArtifactError, match=r"\.obj, \.glb, \.ply"):
        write(tmp_path / "face.stl", uv_map, coefficients)


@pytest.mark.parametrize("texture_format", ["jpeg", "png"])
def test_a_usdz_is_valid_and_holds_the_surface(
    uv_map: UvMap, coefficients: Tensor, texture: np.ndarray, tmp_path: Path, texture_format: TextureFormat
) -> None:
    pytest.importorskip("pxr")
    from pxr import Usd, UsdGeom, UsdValidation  # pyright: ignore[reportAttributeAccessIssue]

    path = tmp_path / "my face [1].usdz"  # a name that is none in USD
    write(path, uv_map, coefficients, texture, texture_format)
    stage: Any = Usd.Stage.Open(str(path))
    # What `usdchecker` asks, and its rules for ARKit among it.
    registry: Any = UsdValidation.ValidationRegistry()
    names = [about.name for about in registry.GetAllValidatorMetadata()]
    assert "usdUtilsValidators:UsdzPackageValidator" in names
    context: Any = UsdValidation.ValidationContext(registry.GetOrLoadValidatorsByName(names))
    errors = [error.GetMessage() for error in context.Validate(stage)]
    assert errors == []
    assert (UsdGeom.GetStageMetersPerUnit(stage), UsdGeom.GetStageUpAxis(stage)) == (1.0, "Y")
    mesh: Any = UsdGeom.Mesh(stage.GetPrimAtPath("/Head/Surface"))
    glb = tmp_path / "face.glb"
    write(glb, uv_map, coefficients, texture, texture_format)
    expected: Any = trimesh.load(glb, force="mesh", process=False)
    assert np.allclose(np.array(mesh.GetPointsAttr().Get()), expected.vertices, atol=1e-6)
    assert np.array_equal(np.array(mesh.GetFaceVertexIndicesAttr().Get()).reshape(-1, 3), expected.faces)
    st = np.array(UsdGeom.PrimvarsAPI(mesh).GetPrimvar("st").Get())
    assert np.allclose(st, expected.visual.uv, atol=1e-6)
    assert np.array(mesh.GetNormalsAttr().Get()).shape == expected.vertices.shape


def test_without_openusd_a_line_says_how_to_install_it(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "pxr", None)
    with pytest.raises(ArtifactError, match=r"pip install 'leanface\[usd\]'"):
        require_usd()
