"""`python -m tools.release.ship`: the pipeline's INT8 network in both flavors becomes the one that LeanFace ships, and
its FP16 one.

For whoever prepares a release: it takes what lies in the working tree, if the report's gates passed.
"""

import csv
import hashlib
from itertools import islice
from pathlib import Path
from statistics import fmean

import onnx
from google.protobuf.message import DecodeError
from onnx.external_data_helper import set_external_data

from leanface import catalog, paths
from leanface.bundle import load_network, save_bundle
from leanface.config import load_face_config
from leanface.errors import ArtifactError
from leanface.files import atomic_write, read_json, read_text, write_json
from leanface.report.gate import require_gates

SCORED = (catalog.DEPLOYED, catalog.DEPLOYED_ON_CPU, "distilled_fp16")

CHECKED = 100
"""Errors of so many faces are kept apart too: reading all of the test split again takes a slow processor minutes."""

MEASURES = ("truth_vertex_mm", "teacher_vertex_mm")

SHARED_BYTES = 1024
"""Smaller tensors are not worth an entry."""


def ship(folder: Path = paths.ASSETS) -> None:
    """Put the networks and the model card into `folder`; beside them, what they scored, and on which faces.

    The INT8 weights are in the file of flavor tensorrt alone, and the other flavor refers to them there: with both
    whole the package would exceed 20 MB.

    Raises:
        LeanFaceError: a gate failed, or the report or a network is missing; nothing was changed.
    """
    require_gates(paths.SUMMARY)
    # Reports are in Git, networks in DVC's cache: all is read before anything is written.
    summary, config = read_json(paths.SUMMARY), load_face_config(paths.CONFIG)
    card, (student, spec) = read_text(paths.MODEL_CARD), load_network(paths.DISTILLED)
    network = _content(paths.onnx_path(catalog.DEPLOYED))
    on_cpu = without_weights_of(paths.onnx_path(catalog.DEPLOYED_ON_CPU), network, paths.PACKAGED_MODEL.name)
    scores = {
        "sha256": hashlib.sha256(network).hexdigest(),
        "teacher": spec.teacher,
        "seed": config.seed,
        "data": config.data.model_dump(mode="json"),
        "device": summary["device"],
        "gates": summary["gates"],
        "scores": {name: summary["variants"][name] for name in SCORED},
        "first": {"count": CHECKED} | {name: _first_errors(name) for name in SCORED},
    }
    atomic_write(folder / paths.PACKAGED_MODEL.name, network)
    atomic_write(folder / paths.PACKAGED_CPU_MODEL.name, on_cpu)
    save_bundle(student, spec, folder / paths.PACKAGED_STUDENT.name, half=True)
    atomic_write(folder / paths.PACKAGED_CARD.name, card)
    write_json(folder / paths.PACKAGED_SCORES.name, scores)


def without_weights_of(path: Path, other: bytes, location: str) -> bytes:
    """Return an ONNX file whose tensors refer to another file where that has the same bytes, as ONNX's external data.

    Args:
        path: the file, whole.
        other: the other file's content.
        location: where it will lie, relative to the result.

    Raises:
        ArtifactError: the file is missing or not ONNX, or has no tensor in common with the other one.
    """
    try:
        model = onnx.load_model_from_string(_content(path))
    except DecodeError as error:
        raise ArtifactError(f"{path} is not an ONNX file ({error}): run `dvc repro`, which makes it.") from None
    shared = 0
    for tensor in model.graph.initializer:
        offset = other.find(tensor.raw_data) if len(tensor.raw_data) >= SHARED_BYTES else -1
        if offset >= 0:
            set_external_data(tensor, location, offset=offset, length=len(tensor.raw_data))
            tensor.ClearField("raw_data")
            shared += 1
    if shared == 0:
        raise ArtifactError(f"{path} has no weights in common with the other flavor: they are not of one network.")
    return model.SerializeToString()


def _content(path: Path) -> bytes:
    try:
        return path.read_bytes()
    except FileNotFoundError:
        raise ArtifactError(f"{path} is missing: run `dvc repro`, which makes it.") from None


def _first_errors(variant: str) -> dict[str, float]:
    """Means over the first test faces, of the proof's row per face."""
    rows = csv.DictReader(read_text(paths.evaluation_dir(variant) / "samples.csv").splitlines())
    first = list(islice(rows, CHECKED))
    return {measure: fmean(float(row[measure]) for row in first) for measure in MEASURES}


if __name__ == "__main__":
    ship()
