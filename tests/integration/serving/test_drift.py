"""`leanface drift` with networks: the reference is kept, and the documentation shows what the command says."""

import re
from pathlib import Path

import numpy as np

from leanface import paths
from leanface.monitoring.drift import FEATURES
from leanface.photos.load import PACKAGED_PHOTOS
from leanface.serving.input_drift import drift_of

ROW = re.compile(r"^\| (\w+) " + r"\| (-?[\d.]+) \((\d+)\) " * len(FEATURES) + r"\|$", re.MULTILINE)


def test_the_documented_table_is_what_the_command_says(root: Path, project: Path) -> None:
    """Within what another processor's rounding may change: up to 0.27 degrees between two of ours."""
    rows = {
        name: [float(value) for value in values]
        for name, *values in ROW.findall((root / "docs/deployment.md").read_text())
    }
    drift = drift_of(list(PACKAGED_PHOTOS), paths.PACKAGED_MODEL)
    assert list(rows) == list(drift.names) == list(PACKAGED_PHOTOS)
    for shown, values, percentiles in zip(rows.values(), drift.values, drift.percentiles, strict=True):
        assert np.allclose(shown[::2], values, atol=0.4, rtol=0.01)
        assert np.allclose(shown[1::2], 100 * percentiles, atol=3)


def test_photos_are_read_from_a_folder_and_the_reference_is_kept(exported, photo_folder: Path, project: Path) -> None:
    (project / "photos").mkdir()
    (project / "photos" / "letter.jpg").write_bytes(b"no photo")
    for name in ("plain", "mirrored"):
        (project / "photos" / f"{name}.png").symlink_to(photo_folder / "astronaut" / f"{name}.png")
    first = drift_of(["photos"], exported.fp32, "onnxruntime")
    assert first.names == ("mirrored", "plain")
    (kept,) = Path(".cache").glob("drift-*.json")
    written = kept.stat().st_mtime_ns
    again = drift_of(["photos"], exported.fp32, "onnxruntime")
    assert np.allclose(first.values, again.values)
    assert kept.stat().st_mtime_ns == written
