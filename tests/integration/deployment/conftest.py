from pathlib import Path

import pytest

from leanface import paths
from leanface.deployment.bundle import export_bundle


@pytest.fixture(scope="session")
def folder(exported, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A bundle of the small network. Made once; do not change it."""
    folder = tmp_path_factory.mktemp("deployed") / "bundle"
    export_bundle(exported.int8, folder, morphable_model=paths.PACKAGED_MORPHABLE_MODEL)
    return folder
