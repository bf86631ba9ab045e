"""Photos against training faces: chance raises no alarm, what is different does, and few faces say nothing."""

from pathlib import Path

import numpy as np
import pytest

from leanface.cli import main
from leanface.errors import ArtifactError
from leanface.monitoring.drift import FEATURES, Reference
from leanface.serving.input_drift import against, drift_of, markdown

RNG = np.random.default_rng(0)


@pytest.fixture
def reference() -> Reference:
    return Reference.of(RNG.normal(size=(512, len(FEATURES))))


def test_faces_like_the_trainings_have_not_drifted(reference: Reference) -> None:
    drift = against(reference, ["a"] * 300, RNG.normal(size=(300, 5)))
    assert [name for name, shift in drift.shifts.items() if shift.drifted] == []
    unusual = (drift.percentiles < 0.01) | (drift.percentiles > 0.99)
    assert 0 < unusual.mean() < 0.05
    assert markdown(drift).count("as trained") == len(FEATURES)
    assert "\n| a " not in markdown(drift)  # too many to list


def test_what_is_different_is_named(reference: Reference) -> None:
    values = RNG.normal(size=(100, 5))
    values[:, FEATURES.index("sharpness")] += 2
    drift = against(reference, ["a"] * 100, values)
    assert [name for name, shift in drift.shifts.items() if shift.drifted] == ["sharpness"]
    assert "**drifted**" in next(line for line in markdown(drift).splitlines() if line.startswith("| sharpness"))


def test_few_faces_are_listed_and_not_judged(reference: Reference) -> None:
    drift = against(reference, ["first", "second"], np.array([[-9.0] * 5, [9.0] * 5]))
    assert drift.percentiles.tolist() == [[0.0] * 5, [1.0] * 5]
    text = markdown(drift)
    assert text.count("too few faces") == len(FEATURES)
    assert "drifted" not in text
    assert "| first | -9 (0) |" in text


def test_photos_without_faces_are_an_error(exported, project: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (project / "letter.jpg").write_bytes(b"no photo")
    with pytest.raises(ArtifactError, match="none of the photos"):
        drift_of(["letter.jpg"], exported.fp32, "onnxruntime")
    assert not list(Path(".cache").glob("*"))  # nothing is measured in vain
    assert main(["drift", "nowhere/*.jpg"]) == 1
    assert "nowhere cannot be read: No such file" in capsys.readouterr().err
