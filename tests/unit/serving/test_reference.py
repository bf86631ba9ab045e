"""What a network makes of training faces: the same every time, one file per network."""

from pathlib import Path

import numpy as np
import pytest

from leanface.monitoring.drift import FEATURES, Reference
from leanface.reconstruction import LeanFace
from leanface.serving.reference import reference_of, reference_path


@pytest.fixture
def face(service_settings):
    with LeanFace.load(service_settings.model, service_settings.runtime, 1) as face:
        yield face


def test_the_reference_is_the_same_every_time(face: LeanFace) -> None:
    first, again = reference_of(face, 20), reference_of(face, 20)
    assert first.values.shape == (len(FEATURES), 20)
    assert np.allclose(first.values, again.values, atol=1e-4)
    assert (np.diff(first.values, axis=1) >= 0).all()
    assert isinstance(first, Reference)


def test_each_network_has_a_file_of_its_own(service_settings, exported, project: Path) -> None:
    other = service_settings.model_copy(update={"model": exported.fp32})
    bundle = service_settings.model_copy(update={"model": exported.float_bundle})
    found = {reference_path(chosen) for chosen in (service_settings, other, bundle)}
    assert len(found) == 3
    assert reference_path(service_settings) == reference_path(service_settings)
