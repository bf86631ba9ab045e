"""The API: any form of the network in, faces out; what does not fit is refused."""

import json
import pickle
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
import trimesh
from PIL import Image

from leanface.catalog import readers_of
from leanface.errors import ArtifactError, BackendError, NoFaceError
from leanface.face.coefficients import ANGLES, LAYOUT
from leanface.face.landmarks import landmarks_image
from leanface.face.uv_map import UvMap
from leanface.photos.alignment import to_input
from leanface.photos.load import load_photo
from leanface.reconstruction import LeanFace
from leanface.reconstruction.result import MESH_TEXTURE_PX
from leanface.synthesis.synthesis import sample_coefficients


@pytest.fixture(scope="module")
def lean_face(exported: Any) -> Any:
    with LeanFace.load(exported.fp32, threads=1) as opened:
        yield opened


@pytest.fixture(scope="module")
def photo() -> np.ndarray:
    return load_photo("astronaut")


def test_a_file_says_its_image_size_and_precision(exported: Any) -> None:
    for path, runtime, precision in (
        (exported.fp32, "openvino", "fp32"),
        (exported.int8, "openvino", "int8"),
        (exported.float_bundle, "torch", "fp32"),
    ):
        with LeanFace.load(path, threads=1) as opened:
            assert (opened.image_size, opened.precision, opened.runtime.name) == (64, precision, runtime)


def test_a_runtime_that_does_not_read_the_file_is_refused_with_those_that_do(exported: Any) -> None:
    for path, runtime, readers in (
        (exported.int8, "tensorrt", readers_of("onnx")),
        (exported.int8, "torch", readers_of("onnx")),
        (exported.float_bundle, "openvino", readers_of("bundle")),
    ):
        with pytest.raises(BackendError, match=f"{runtime} does not read .*{path.name}; expected one of") as refused:
            LeanFace.load(path, runtime)
        named = str(refused.value).rpartition("expected one of ")[2].rstrip(".").split(", ")
        assert sorted(named) == sorted(readers)
    with pytest.raises(BackendError, match="unknown runtime 'nothing'"):
        LeanFace.load(exported.int8, "nothing")


def test_bundle_and_onnx_read_the_same(exported: Any, lean_face: LeanFace) -> None:
    crops = np.random.default_rng(0).integers(0, 256, (3, 64, 64, 3)).astype(np.uint8)
    answers = lean_face.read(crops)
    assert answers.shape == (3, 257)
    np.testing.assert_array_equal(lean_face.runtime.run(to_input(crops)), answers)
    with LeanFace.load(exported.float_bundle, threads=1) as bundle:
        np.testing.assert_allclose(bundle.read(crops), answers, atol=2e-3)


@pytest.mark.parametrize("shape", [(64, 64, 3), (1, 3, 64, 64), (1, 80, 80, 3)])
def test_crops_of_another_shape_are_refused(lean_face: LeanFace, shape: tuple[int, ...]) -> None:
    with pytest.raises(ValueError, match=r"expected crops .*\(N, 64, 64, 3\)"):
        lean_face.read(np.zeros(shape, np.uint8))
    with pytest.raises(ValueError, match="float64"):
        lean_face.read(np.zeros((1, 64, 64, 3)))


def test_decoded_landmarks_are_where_the_reference_projects_them(lean_face: LeanFace) -> None:
    model = lean_face.surface.model
    coefficients = sample_coefficients(model, 2, torch.Generator().manual_seed(0))
    expected = landmarks_image(model, coefficients, 64).numpy()
    for face, landmarks in zip(lean_face.decode(coefficients.numpy()), expected, strict=True):
        np.testing.assert_allclose(face.landmarks, landmarks, atol=1e-3)
        np.testing.assert_allclose(face.vertices_photo[model.landmarks.numpy(), :2], landmarks, atol=1e-3)


def test_a_photo_gives_a_face_whose_crop_and_detection_fit_it(lean_face: LeanFace, photo: np.ndarray) -> None:
    (face,) = lean_face.reconstruct(photo)
    assert face.detection is not None
    expected = lean_face.read(lean_face.crop(photo)[0].crop[None])[0]
    np.testing.assert_array_equal(face.coefficients, expected)
    eyes = face.alignment.crop_from_photo(face.detection.landmarks)[:2]
    assert (np.abs(eyes - 32) < 16).all()
    assert face.texture is None


def test_a_large_photo_shows_the_same_faces(lean_face: LeanFace, photo: np.ndarray) -> None:
    (small,) = lean_face.detect(photo)
    (large,) = lean_face.detect(np.repeat(np.repeat(photo, 4, 0), 4, 1))
    np.testing.assert_allclose(large.landmarks, (small.landmarks + 0.5) * 4 - 0.5, atol=4.0)


def test_several_faces_come_the_largest_first(lean_face: LeanFace, photo: np.ndarray) -> None:
    small = photo[::2, ::2]
    both = np.concatenate([np.pad(small, ((128, 128), (0, 0), (0, 0))), photo], 1)
    faces = lean_face.reconstruct(both)
    assert [face.detection.box[0] > 256 for face in faces if face.detection] == [True, False]
    assert len(lean_face.reconstruct(both, faces="largest")) == 1


def test_a_photo_without_a_face_is_an_error_of_its_own(lean_face: LeanFace) -> None:
    with pytest.raises(NoFaceError, match="no face found"):
        lean_face.reconstruct(np.full((100, 100, 3), 128, np.uint8))


def test_json_holds_everything_and_a_mesh_the_texture(lean_face: LeanFace, photo: np.ndarray, tmp_path: Path) -> None:
    model = lean_face.surface.model
    known = sample_coefficients(model, 1, torch.Generator().manual_seed(4)).numpy()
    (face,) = lean_face.decode(known, lean_face.crop(photo))
    content = json.loads(json.dumps(face.to_json()))
    joined = np.concatenate([content["coefficients"][name] for name in LAYOUT])
    np.testing.assert_array_equal(joined.astype(np.float32), known[0])
    assert content["pose"]["yaw_deg"] == pytest.approx(np.degrees(known[0, ANGLES][1]), abs=1e-3)
    textured = lean_face.textured(face, photo, 128)
    assert textured.texture is not None
    assert textured.texture.shape == (128, 128, 3)
    textured.save_mesh(tmp_path / "face.glb", texture_format="png")
    (mesh,) = trimesh.load_scene(tmp_path / "face.glb").geometry.values()
    stored = np.asarray(mesh.visual.material.baseColorTexture.convert("RGB"))
    np.testing.assert_array_equal(stored, textured.texture)


def test_a_face_can_be_pickled(lean_face: LeanFace, photo: np.ndarray) -> None:
    """So that other processes can write its files."""
    (face,) = lean_face.reconstruct(photo, faces="largest", texture_size=64)
    content = pickle.dumps(face)
    one, other = pickle.loads(content), pickle.loads(content)
    assert one.encode_mesh() == face.encode_mesh()
    assert one.surface is other.surface
    assert len(content) < 1.1 * (3 * face.vertices.nbytes + 3 * 64**2) + 10_000


def test_without_a_texture_a_mesh_has_the_models_albedo(lean_face: LeanFace, tmp_path: Path) -> None:
    coefficients = sample_coefficients(lean_face.surface.model, 1, torch.Generator().manual_seed(5))
    (face,) = lean_face.decode(coefficients.numpy())
    face.save_mesh(tmp_path / "face.obj", texture_format="png")
    uv_map = UvMap(lean_face.surface.model, MESH_TEXTURE_PX, whole_head=True)
    mask, written = uv_map.mask.numpy(), np.asarray(Image.open(tmp_path / "face_texture.png")) / 255
    np.testing.assert_allclose(written[mask], uv_map.albedo(coefficients)[0].numpy()[mask], atol=0.51 / 255)
    assert (written[~mask].max(-1) > 0).all()


def test_what_is_no_network_is_refused(tmp_path: Path, exported: Any, project: Path) -> None:
    with pytest.raises(ArtifactError, match="is missing"):
        LeanFace.load(tmp_path / "none.onnx")
    with pytest.raises(ArtifactError, match="is not a bundle"):
        LeanFace.load(tmp_path)
    (tmp_path / "wrong.onnx").write_bytes(b"\0wrong")
    with pytest.raises(ArtifactError, match=r"wrong\.onnx"):
        LeanFace.load(tmp_path / "wrong.onnx")
    (tmp_path / "wrong.plan").write_bytes(b"")
    with pytest.raises(ArtifactError, match="does not describe an engine"):
        LeanFace.load(tmp_path / "wrong.plan")
    with pytest.raises(BackendError, match="unknown runtime"):
        LeanFace.load(exported.fp32, runtime="abacus")


def test_a_closed_one_reads_no_more(exported: Any) -> None:
    opened = LeanFace.load(exported.fp32, threads=1)
    opened.close()
    opened.close()
    with pytest.raises(BackendError, match="closed"):
        opened.read(np.zeros((1, 64, 64, 3), np.uint8))
