"""ARKit's units go in as coefficients and come out as weights."""

import json
from pathlib import Path

import numpy as np
import pytest

from leanface.errors import ArtifactError
from leanface.face.arkit import NAMES, RESIDUAL_MAX, Blendshapes
from leanface.face.head_model import HeadModel, load_head_model
from leanface.files import digest
from leanface.paths import PACKAGED_ARKIT_UNITS, PACKAGED_MORPHABLE_MODEL

CONTENT = json.loads(PACKAGED_ARKIT_UNITS.read_text())


@pytest.fixture(scope="module")
def head() -> HeadModel:
    return load_head_model()


@pytest.fixture(scope="module")
def blendshapes(head: HeadModel) -> Blendshapes:
    loaded = Blendshapes.load(head, digest(PACKAGED_MORPHABLE_MODEL))
    assert loaded is not None
    return loaded


def test_units_that_the_model_cannot_express_are_left_out(blendshapes: Blendshapes) -> None:
    assert len(NAMES) == len(set(NAMES)) == 52
    assert set(CONTENT["units"]) == set(NAMES) - {"tongueOut"}
    left_out = set(NAMES) - set(blendshapes.names)
    assert left_out == {"tongueOut", *(name for name in NAMES if name.startswith("eyeLook"))}
    assert all(CONTENT["units"][name]["residual"] <= RESIDUAL_MAX for name in blendshapes.names)


def test_a_face_at_rest_has_the_weights_of_rest(blendshapes: Blendshapes) -> None:
    (weights,) = blendshapes.fit(np.zeros((1, 64)))
    rest = [CONTENT["rest"].get(name, 0.0) for name in blendshapes.names]
    assert weights == pytest.approx(rest, abs=1e-6)


def test_expressions_made_of_units_come_out_as_these_units(blendshapes: Blendshapes) -> None:
    generator = np.random.default_rng(0)
    units = np.array([CONTENT["units"][name]["coefficients"] for name in blendshapes.names])
    rest = np.array([CONTENT["rest"].get(name, 0.0) for name in blendshapes.names])
    active = generator.random((200, len(units))) * (generator.random((200, len(units))) < 0.1)
    wanted = np.clip(rest + active, 0, 1)
    found = blendshapes.fit((wanted - rest) @ units)
    assert found.min() >= 0
    assert found.max() <= 1
    assert np.abs(found - wanted).mean() < 0.01
    assert np.quantile(np.abs(found - wanted), 0.99) < 0.1


def test_left_is_the_person_s_own_left(head: HeadModel) -> None:
    basis = head.components[80:144]
    for name, side in {"eyeBlinkLeft": 1, "mouthSmileRight": -1, "browDownLeft": 1}.items():
        moves = (CONTENT["units"][name]["coefficients"] @ basis).reshape(-1, 3)
        farthest = np.linalg.norm(moves, axis=1).argmax()
        assert side * head.coarse_mean[farthest, 0] > 0.1  # dm, to the image's right


def test_other_models_have_none_and_damage_is_told(head: HeadModel, tmp_path: Path) -> None:
    assert Blendshapes.load(head, "0" * 64) is None
    (tmp_path / "units.json").write_text(PACKAGED_ARKIT_UNITS.read_text()[:1000])
    with pytest.raises(ArtifactError, match=r"units\.json does not hold ARKit's units"):
        Blendshapes.load(head, "0" * 64, tmp_path / "units.json")
