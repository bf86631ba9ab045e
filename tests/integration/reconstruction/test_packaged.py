"""The network that ships: what its model card says is true of it here."""

import json
from collections.abc import Generator
from dataclasses import replace

import numpy as np
import pytest
import torch

from leanface import catalog, paths
from leanface.config import Data
from leanface.device import has_vnni
from leanface.errors import NoFaceError
from leanface.face.morphable_model import MorphableModel
from leanface.metrics.outputs import mean_errors, predict
from leanface.networks.packed import load_packed, load_pretrained
from leanface.photos.load import load_photo
from leanface.reconstruction import LeanFace
from leanface.runtime.onnx_file import read_onnx
from leanface.synthesis.dataset import FaceDataset
from leanface.synthesis.prepare import prepare_faces
from leanface.tasks.face.task import FaceTask

KNOWN = json.loads(paths.PACKAGED_SCORES.read_text())
PACKAGED = {
    catalog.DEPLOYED: (paths.PACKAGED_MODEL, "auto"),
    catalog.DEPLOYED_ON_CPU: (paths.PACKAGED_CPU_MODEL, "openvino" if has_vnni() else "onnxruntime"),
    "distilled_fp16": (paths.PACKAGED_STUDENT, "auto"),
}
"""Each scored network, and what computes it exactly here."""

SCORES, FIRST = KNOWN["scores"][catalog.DEPLOYED], KNOWN["first"]


@pytest.fixture(scope="module")
def test_faces(model: MorphableModel, tmp_path_factory: pytest.TempPathFactory) -> FaceDataset:
    """The first of those that it was evaluated on: a split depends on the seed, not on the size of the others."""
    data = Data.model_validate(KNOWN["data"] | {"train_count": 8, "val_count": 4})
    folder = tmp_path_factory.mktemp("packaged") / "faces"
    prepare_faces(model, data, KNOWN["seed"], folder)
    faces = FaceDataset(folder / "test")
    faces.images, faces.coefficients = faces.images[: FIRST["count"]], faces.coefficients[: FIRST["count"]]
    return faces


@pytest.fixture(scope="module")
def original(test_faces: FaceDataset) -> torch.Tensor:
    """What the original answers on them."""
    return predict(load_pretrained(KNOWN["data"]["image_size"]), test_faces)


def test_it_is_small_and_passed_its_gates() -> None:
    assert paths.PACKAGED_MODEL.stat().st_size < 8e6
    assert SCORES["size_mb"] == pytest.approx(paths.PACKAGED_MODEL.stat().st_size / 1e6)
    assert f"{SCORES['size_mb']:.2f} MB" in paths.PACKAGED_CARD.read_text()
    assert all(gate["passed"] for gate in KNOWN["gates"].values())
    with LeanFace.load() as lean_face:
        assert (lean_face.precision, lean_face.image_size) == ("int8", KNOWN["data"]["image_size"])
        if lean_face.runtime.name in ("openvino", "onnxruntime"):
            assert lean_face.model_path == (paths.PACKAGED_CPU_MODEL if has_vnni() else paths.PACKAGED_MODEL)


def test_both_flavors_are_the_same_weights_and_take_little_room() -> None:
    assert read_onnx(paths.PACKAGED_MODEL).flavor == "tensorrt"
    assert read_onnx(paths.PACKAGED_CPU_MODEL).flavor == "cpu"
    assert paths.PACKAGED_CPU_MODEL.stat().st_size < 1e6
    assert read_onnx(paths.PACKAGED_CPU_MODEL).teacher == read_onnx(paths.PACKAGED_MODEL).teacher


@pytest.mark.parametrize("variant", KNOWN["scores"])
def test_its_errors_are_those_of_its_card(
    variant: str, model: MorphableModel, test_faces: FaceDataset, original: torch.Tensor
) -> None:
    path, runtime = PACKAGED[variant]
    with LeanFace.load(path, runtime) as lean_face:
        answers = torch.from_numpy(lean_face.read(test_faces.images))
    truth = torch.from_numpy(test_faces.coefficients)
    # Processors round INT8 sums differently, and rendered bytes may differ by a level.
    for reference, name in ((truth, "truth_vertex_mm"), (original, "teacher_vertex_mm")):
        errors = mean_errors(FaceTask(model), answers, reference)
        assert errors["vertex_mm"] == pytest.approx(FIRST[variant][name], rel=0.03)


def test_the_original_for_224_px_reads_better_than_the_other(
    model: MorphableModel, test_faces: FaceDataset, original: torch.Tensor
) -> None:
    other = predict(load_packed(paths.PRETRAINED_TEACHER), test_faces)
    better, worse = (
        mean_errors(FaceTask(model), answers, torch.from_numpy(test_faces.coefficients))
        for answers in (original, other)
    )
    for name, ratio in {"identity_mm": 0.92, "vertex_mm": 0.92, "rotation_deg": 0.92}.items():
        assert better[name] < ratio * worse[name], name


@pytest.fixture(scope="module")
def shipped() -> Generator[LeanFace]:
    with LeanFace.load(threads=1) as lean_face:
        yield lean_face


@pytest.mark.parametrize("name", ["astronaut", "grace_hopper"])
@pytest.mark.parametrize("quarters", [1, 2, 3])
def test_a_portrait_that_lies_or_stands_on_its_head_gives_the_same_head(
    shipped: LeanFace, name: str, quarters: int
) -> None:
    photo = load_photo(name)
    (upright,) = shipped.reconstruct(photo)
    (turned,) = shipped.reconstruct(np.rot90(photo, quarters))
    apart_mm = 100 * np.linalg.norm(turned.vertices - upright.vertices, axis=1).mean()
    assert apart_mm < 1.5
    landmarks = turned.landmarks
    side = photo.shape[1] if quarters % 2 else photo.shape[0]
    for sides in [photo.shape[:2][::-1], photo.shape[:2], photo.shape[:2][::-1]][:quarters][::-1]:
        # One quarter back: np.rot90 moves (x, y) of a picture of width w to (y, w - 1 - x).
        landmarks = np.stack([sides[0] - 1 - landmarks[:, 1], landmarks[:, 0]], 1)
    assert np.linalg.norm(landmarks - upright.landmarks, axis=1).max() < 0.02 * side
    assert turned.misfit < 0.3
    roll_deg = np.degrees(turned.pose.angles_rad[2] - upright.pose.angles_rad[2])
    assert (roll_deg - 90 * quarters + 180) % 360 - 180 == pytest.approx(0, abs=3)


def test_a_head_that_does_not_lie_where_its_face_was_found_is_no_face(shipped: LeanFace) -> None:
    (face,) = shipped.reconstruct(load_photo("astronaut"))
    assert face.detection is not None
    elsewhere = replace(face.detection, landmarks=face.detection.landmarks + np.array([15, 15]))
    misread = replace(face, detection=elsewhere)
    assert shipped.sound([misread, face]) == [face]
    with pytest.raises(NoFaceError, match=r"could not be read: .* lie \d+ % of their own size"):
        shipped.sound([misread])
    assert shipped.sound([]) == []
