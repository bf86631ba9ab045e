"""The network that ships: what its model card says is true of it here."""

import json

import pytest
import torch

from leanface import catalog, paths
from leanface.config import Data
from leanface.face.morphable_model import MorphableModel
from leanface.metrics.outputs import mean_errors, predict
from leanface.networks.packed import load_packed, load_pretrained
from leanface.reconstruction import LeanFace
from leanface.synthesis.dataset import FaceDataset
from leanface.synthesis.prepare import prepare_faces
from leanface.tasks.face import FaceTask

KNOWN = json.loads(paths.PACKAGED_SCORES.read_text())
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


@pytest.mark.parametrize("variant", KNOWN["scores"])
def test_its_errors_are_those_of_its_card(
    variant: str, model: MorphableModel, test_faces: FaceDataset, original: torch.Tensor
) -> None:
    path = paths.PACKAGED_MODEL if variant == catalog.DEPLOYED else paths.PACKAGED_STUDENT
    with LeanFace.load(path) as lean_face:
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
