"""docs/deployment.md shows what `leanface drift` says of the packaged photos, with the shipped network."""

import re
from pathlib import Path

import numpy as np

from leanface.monitoring.drift import FEATURES
from leanface.photos.load import PACKAGED_PHOTOS
from leanface.serving.input_drift import drift_of

ROW = re.compile(r"^\| (\w+) " + r"\| (-?[\d.]+) \((\d+)\) " * len(FEATURES) + r"\|$", re.MULTILINE)


def test_the_documented_table_is_what_the_command_says(root: Path, project: Path) -> None:
    """Within what another processor's rounding may change."""
    rows = {
        name: [float(value) for value in values]
        for name, *values in ROW.findall((root / "docs/deployment.md").read_text())
    }
    drift = drift_of(list(PACKAGED_PHOTOS))
    assert list(rows) == list(drift.names) == list(PACKAGED_PHOTOS)
    for shown, values, percentiles in zip(rows.values(), drift.values, drift.percentiles, strict=True):
        assert np.allclose(shown[::2], values, atol=0.15, rtol=0.01)
        assert np.allclose(shown[1::2], 100 * percentiles, atol=3)
