"""Which original a network is compared with: its own, and no other."""

import copy
import shutil
from pathlib import Path

import onnx
import pytest

from leanface import paths
from leanface.bundle import load_spec, new_spec, save_bundle, weights_digest
from leanface.errors import ArtifactError
from leanface.export.onnx import export_network
from leanface.networks.resnet import FaceReconstructionNet, build_network, scaled_widths
from leanface.reconstruction.lineage import is_teacher_of, recorded_teacher, teacher_of


@pytest.fixture(scope="module")
def models(shared_network: FaceReconstructionNet, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A teacher, and a student of it as bundle and as ONNX file, where a project has them. Do not change them."""
    root = tmp_path_factory.mktemp("models")
    save_teacher(root / paths.TEACHER, 64)
    spec = new_spec(shared_network, 64, provenance={"teacher_weights": weights_digest(root / paths.TEACHER)})
    save_bundle(shared_network, spec, root / paths.DISTILLED)
    (root / "models/onnx").mkdir()
    onnx.save(export_network(copy.deepcopy(shared_network), spec, "fp32", 19), root / "models/onnx/student.onnx")
    return root


def save_teacher(folder: Path, image_size: int) -> None:
    teacher = build_network(scaled_widths(0.125)).eval()
    save_bundle(teacher, new_spec(teacher, image_size), folder)


@pytest.fixture
def project(models: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A project with these models; the current folder."""
    root = Path(shutil.copytree(models, tmp_path / "project"))
    monkeypatch.chdir(root)
    return root


def test_what_ships_goes_with_the_original_that_ships_also_in_a_project(project: Path) -> None:
    ships = (paths.PACKAGED_MODEL, paths.PACKAGED_STUDENT)
    with teacher_of(ships[0], 224) as folder:
        assert folder.resolve() != (project / paths.TEACHER).resolve()
        assert load_spec(folder).input.size == 224
        assert [is_teacher_of(folder, model) for model in ships] == [True, True]
    assert [is_teacher_of(paths.TEACHER, model) for model in ships] == [False, False]


def test_a_copy_of_what_ships_is_known(tmp_path: Path) -> None:
    copy = tmp_path / "mine.onnx"
    copy.write_bytes(paths.PACKAGED_MODEL.read_bytes())
    assert recorded_teacher(copy) == recorded_teacher(paths.PACKAGED_MODEL) == recorded_teacher(paths.PACKAGED_STUDENT)


@pytest.mark.parametrize("name", ["models/distilled", "models/onnx/student.onnx"])
def test_a_projects_network_goes_with_its_projects_teacher_from_anywhere(
    name: str, project: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    with teacher_of(project / name, 64) as folder:
        assert folder.resolve() == (project / paths.TEACHER).resolve()


def test_another_original_is_refused_with_its_size(project: Path) -> None:
    save_teacher(paths.TEACHER, 112)  # today's teacher is not the student's
    found = r"original of .*distilled \(64 px\) is not here: .*\(112 px\) is another network"
    with pytest.raises(ArtifactError, match=found), teacher_of(project / paths.DISTILLED, 64):
        pass


def test_a_network_that_records_no_original_says_so(project: Path) -> None:
    unknown = "does not say which network it was compressed from"
    with pytest.raises(ArtifactError, match=unknown), teacher_of(paths.TEACHER, 64):
        pass
    assert is_teacher_of(paths.TEACHER, paths.TEACHER) is None
