"""The Basel Face Model's layout, on a file that holds the front of the packaged head."""

from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import pytest
import torch
from scipy.io import savemat

from leanface.errors import ArtifactError
from leanface.face.basel import cylindrical_uv, load_basel
from leanface.face.choice import choose_morphable_model
from leanface.face.morphable_model import MorphableModel, load_morphable_model, save_morphable_model
from leanface.face.render import Renderer
from leanface.face.uv_map import UvMap
from leanface.modelscope_hub import BASEL_MODEL
from leanface.paths import PACKAGED_MORPHABLE_MODEL
from leanface.synthesis.synthesis import sample_coefficients

if TYPE_CHECKING:
    from tests.conftest import Front

SMALL = 6
"""Vertices of the files that are wrong on purpose."""


@pytest.fixture(scope="module")
def basel(front: "Front") -> MorphableModel:
    return load_basel(front.path)


def buffers(model: MorphableModel) -> dict[str, torch.Tensor]:
    return dict(model.named_buffers())


def small(**changes: Any) -> dict[str, np.ndarray]:
    """The contents of a valid file of a few vertices, some of them replaced."""
    random = np.random.default_rng(0)
    arrays: dict[str, Any] = {
        "meanshape": random.normal(size=(1, 3 * SMALL)),
        "meantex": random.uniform(0, 255, (1, 3 * SMALL)),
        "idBase": random.normal(size=(3 * SMALL, 80)),
        "exBase": random.normal(size=(3 * SMALL, 64)),
        "texBase": random.normal(size=(3 * SMALL, 80)),
        "tri": np.array([[1, 2, 3], [4, 5, 6]]),
        "keypoints": np.full((1, 68), SMALL),
        "frontmask2_idx": np.array([[1], [SMALL]]),
    }
    return {name: value for name, value in (arrays | changes).items() if value is not None}


def test_shape_and_albedo_are_the_files_about_their_own_middle(
    front: "Front", basel: MorphableModel, model: MorphableModel
) -> None:
    parts = sample_coefficients(model, 3, torch.Generator().manual_seed(0)).split((80, 64, 80, 33), 1)
    whole = model.vertices(parts[0], parts[1])[:, front.vertices]
    middle = model.mean_vertices[front.vertices].mean(0)
    torch.testing.assert_close(basel.vertices(parts[0], parts[1]), whole - middle, atol=1e-5, rtol=0)
    torch.testing.assert_close(basel.albedo(parts[2]), model.albedo(parts[2])[:, front.vertices], atol=1e-5, rtol=0)
    assert float(basel.mean_vertices.mean(0).abs().max()) < 1e-5


def test_indices_count_from_zero(front: "Front", basel: MorphableModel, model: MorphableModel) -> None:
    assert torch.equal(torch.from_numpy(front.vertices)[basel.landmarks], model.landmarks)
    assert torch.equal(basel.face_mask, model.face_mask[front.vertices])
    corners = {tuple(row) for row in model.triangles.tolist()}
    assert all(tuple(row) in corners for row in torch.from_numpy(front.vertices)[basel.triangles].tolist())


def test_it_is_seen_whichever_way_its_triangles_are_wound(front: "Front", tmp_path: Path) -> None:
    savemat(tmp_path / "turned.mat", front.arrays | {"tri": front.arrays["tri"][:, ::-1]})
    coefficients = torch.zeros(1, 257)
    coefficients[:, 227:230] = 1.0
    images = [Renderer(load_basel(path), 64)(coefficients) for path in (front.path, tmp_path / "turned.mat")]
    assert float(images[0].alpha.mean()) > 0.2
    torch.testing.assert_close(images[0].image, images[1].image, atol=1e-4, rtol=0)


def test_an_eye_is_the_vertex_nearest_to_the_middle_of_its_corners(tmp_path: Path) -> None:
    line = np.random.default_rng(0).uniform(0, 0.1, (SMALL, 3))
    line[:, 0] += [0, 1, 2, 3, 4, 9]
    points = np.ones((1, 68), int)
    points[0, [36, 39]] = [1, 5]
    savemat(tmp_path / "line.mat", small(meanshape=line.reshape(1, -1), keypoints=points))
    assert load_basel(tmp_path / "line.mat").landmarks.tolist() == [2, 0, 0, 0, 0]


def test_the_unwrapped_face_keeps_right_right_and_up_up(basel: MorphableModel) -> None:
    uv, vertices = basel.uv, basel.mean_vertices
    assert 0 <= float(uv.min()) <= float(uv.max()) <= 1
    assert float(torch.corrcoef(torch.stack([uv[:, 1], vertices[:, 1]]))[0, 1]) == pytest.approx(1)
    front = vertices[:, 2] > 0
    assert float(torch.corrcoef(torch.stack([uv[front, 0], vertices[front, 0]]))[0, 1]) > 0.98
    assert float(UvMap(basel, 64).mask.float().mean()) > 0.6


def test_a_half_cylinder_unwraps_evenly() -> None:
    angle = np.linspace(-np.pi / 2, np.pi / 2, 9)
    height = np.linspace(0, 3, 9)
    uv = cylindrical_uv(np.stack([np.sin(angle), height, np.cos(angle)], axis=1))
    np.testing.assert_allclose(uv, np.linspace(0, 1, 9)[:, None].repeat(2, axis=1), atol=1e-6)


def test_saving_and_loading_gives_the_same_bits(basel: MorphableModel, tmp_path: Path) -> None:
    save_morphable_model(basel, tmp_path / "data" / "model.npz")
    again = load_morphable_model(tmp_path / "data" / "model.npz")
    assert all(torch.equal(value, buffers(again)[name]) for name, value in buffers(basel).items())


def test_a_choice_is_written_where_the_stages_read_it(front: "Front", model: MorphableModel, tmp_path: Path) -> None:
    path = tmp_path / "model.npz"
    assert choose_morphable_model("packaged", path).vertex_count == model.vertex_count
    assert path.read_bytes() == PACKAGED_MORPHABLE_MODEL.read_bytes()
    snapshot = tmp_path / "snapshot"
    (snapshot / BASEL_MODEL).parent.mkdir(parents=True)
    (snapshot / BASEL_MODEL).symlink_to(front.path)
    for choice in (front.path, snapshot):
        chosen, written = choose_morphable_model(str(choice), path), load_morphable_model(path)
        assert all(torch.equal(value, buffers(written)[name]) for name, value in buffers(chosen).items())
    before = path.read_bytes()
    with pytest.raises(ArtifactError, match="missing"):
        choose_morphable_model(str(tmp_path / "none.mat"), path)
    assert path.read_bytes() == before


@pytest.mark.parametrize(
    ("changes", "says"),
    [
        ({"exBase": None}, "exBase missing"),
        ({"idBase": np.zeros((3 * SMALL, 79))}, r"idBase is \(18, 79\), not \(18, 80\)"),
        ({"texBase": np.full((3 * SMALL, 80), np.nan)}, "not finite"),
        ({"meantex": np.zeros((1, 5))}, "meantex"),
        ({"tri": np.array([[0, 1, 2]])}, "tri does not index 6 vertices"),
        ({"frontmask2_idx": np.array([[SMALL + 1]])}, "frontmask2_idx does not index"),
        ({"keypoints": np.ones((1, 5))}, "5 keypoints, not 68"),
    ],
)
def test_another_layout_is_refused(tmp_path: Path, changes: dict[str, Any], says: str) -> None:
    savemat(tmp_path / "good.mat", small())
    assert load_basel(tmp_path / "good.mat").vertex_count == SMALL
    savemat(tmp_path / "other.mat", small(**changes))
    with pytest.raises(ArtifactError, match=says):
        load_basel(tmp_path / "other.mat")


def test_missing_and_damaged_files_are_refused(front: "Front", tmp_path: Path) -> None:
    with pytest.raises(ArtifactError, match=r"data\.morphable_model"):
        load_basel(tmp_path / "none.mat")
    for name, contents in {"cut": front.path.read_bytes()[:5000], "text": b"no model", "empty": b""}.items():
        (tmp_path / name).write_bytes(contents)
        with pytest.raises(ArtifactError, match="not a MAT file"):
            load_basel(tmp_path / name)
