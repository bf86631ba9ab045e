"""Which original a network is compared with: its own, and no other."""

from pathlib import Path

import onnx
import pytest

from leanface import paths
from leanface.bundle import load_spec, new_spec, save_bundle, weights_digest
from leanface.errors import ArtifactError
from leanface.export.onnx import export_network
from leanface.networks.packed import load_pretrained
from leanface.networks.resnet import FaceReconstructionNet, build_network, scaled_widths
from leanface.reconstruction.lineage import is_teacher_of, recorded_teacher, teacher_of


@pytest.fixture
def project(tmp_path: Path, small_network: FaceReconstructionNet, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A project with a teacher of its own, and a student of it as bundle and as ONNX file; the current folder."""
    root = tmp_path / "project"
    teacher = build_network(scaled_widths(0.125)).eval()
    save_bundle(teacher, new_spec(teacher, 64), root / paths.TEACHER)
    spec = new_spec(small_network, 64, provenance={"teacher_weights": weights_digest(root / paths.TEACHER)})
    save_bundle(small_network, spec, root / paths.DISTILLED)
    (root / "models/onnx").mkdir()
    onnx.save(export_network(small_network, spec, "fp32", 19), root / "models/onnx/student.onnx")
    monkeypatch.chdir(root)
    return root


@pytest.mark.parametrize("model", [paths.PACKAGED_MODEL, paths.PACKAGED_STUDENT])
def test_what_ships_goes_with_the_original_that_ships_also_in_a_project(model: Path, project: Path) -> None:
    with teacher_of(model, 224) as folder:
        assert folder.resolve() != (project / paths.TEACHER).resolve()
        assert load_spec(folder).input.size == 224
        assert is_teacher_of(folder, model)
    assert is_teacher_of(paths.TEACHER, model) is False


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
    network = load_pretrained(112)
    save_bundle(network, new_spec(network, 112), paths.TEACHER)  # today's teacher is not the student's
    found = r"original of .*distilled \(64 px\) is not here: .*\(112 px\) is another network"
    with pytest.raises(ArtifactError, match=found), teacher_of(project / paths.DISTILLED, 64):
        pass


def test_a_network_that_records_no_original_says_so(project: Path) -> None:
    unknown = "does not say which network it was compressed from"
    with pytest.raises(ArtifactError, match=unknown), teacher_of(paths.TEACHER, 64):
        pass
    assert is_teacher_of(paths.TEACHER, paths.TEACHER) is None
