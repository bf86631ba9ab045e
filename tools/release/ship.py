"""`python -m tools.release.ship`: the pipeline's INT8 network becomes the one that LeanFace ships, and its FP16 one.

For whoever prepares a release: it takes what lies in the working tree, if the report's gates passed.
"""

import csv
import hashlib
from itertools import islice
from pathlib import Path
from statistics import fmean

from leanface import catalog, paths
from leanface.bundle import load_network, save_bundle
from leanface.config import load_config
from leanface.errors import ArtifactError
from leanface.files import atomic_write, copy_file, read_json, read_text, write_json
from leanface.report.gate import require_gates

SCORED = (catalog.DEPLOYED, "distilled_fp16")

CHECKED = 100
"""Errors of so many faces are kept apart too: reading all of the test split again takes a slow processor minutes."""

MEASURES = ("truth_vertex_mm", "teacher_vertex_mm")


def ship(folder: Path = paths.ASSETS) -> None:
    """Put both networks and the model card into `folder`; beside them, what they scored, and on which faces.

    Raises:
        LeanFaceError: a gate failed, or the report or a network is missing; nothing was changed.
    """
    require_gates(paths.SUMMARY)
    # Reports are in Git, networks in DVC's cache: all is read before anything is written.
    summary, config = read_json(paths.SUMMARY), load_config(paths.CONFIG)
    card, (student, spec) = read_text(paths.MODEL_CARD), load_network(paths.DISTILLED)
    scores = {
        "sha256": _digest(paths.onnx_path(catalog.DEPLOYED)),
        "teacher": spec.teacher,
        "seed": config.seed,
        "data": config.data.model_dump(mode="json"),
        "device": summary["device"],
        "gates": summary["gates"],
        "scores": {name: summary["variants"][name] for name in SCORED},
        "first": {"count": CHECKED} | {name: _first_errors(name) for name in SCORED},
    }
    copy_file(paths.onnx_path(catalog.DEPLOYED), folder / paths.PACKAGED_MODEL.name)
    save_bundle(student, spec, folder / paths.PACKAGED_STUDENT.name, half=True)
    atomic_write(folder / paths.PACKAGED_CARD.name, card)
    write_json(folder / paths.PACKAGED_SCORES.name, scores)


def _digest(path: Path) -> str:
    try:
        return hashlib.sha256(path.read_bytes()).hexdigest()
    except FileNotFoundError:
        raise ArtifactError(f"{path} is missing: run `dvc repro`, which makes it.") from None


def _first_errors(variant: str) -> dict[str, float]:
    """Means over the first test faces, of the proof's row per face."""
    rows = csv.DictReader(read_text(paths.evaluation_dir(variant) / "samples.csv").splitlines())
    first = list(islice(rows, CHECKED))
    return {measure: fmean(float(row[measure]) for row in first) for measure in MEASURES}


if __name__ == "__main__":
    ship()
