"""Collect what the model card says of the deployed file beside its measurements."""

import json

from leanface import catalog, paths
from leanface.files import Json
from leanface.networks.interface import METADATA_PREFIX
from leanface.report.sources import Sources


def model_card(sources: Sources) -> Json:
    """Return the file's own description and metadata, and how, on what and where it was made."""
    description = sources.exports[catalog.DEPLOYED]
    metadata = {key.removeprefix(METADATA_PREFIX): value for key, value in description["metadata"].items()}
    layout: dict[str, list[int]] = json.loads(metadata["outputs"])
    return {
        "file": paths.onnx_path(catalog.DEPLOYED).name,
        "version": metadata["version"],
        "precision": metadata["precision"],
        "license": metadata["license"],
        "input": json.loads(metadata["input"]),
        "output": description["outputs"][0]["name"],
        "outputs": max(stop for _, stop in layout.values()),
        "layout": {name: f"{start} to {stop - 1}" for name, (start, stop) in layout.items()},
        "dynamic_size": isinstance(description["inputs"][0]["shape"][2], str),
        "bundle": description["bundle_sha256"],
        "settings": sources.settings,
        "device": sources.device,
        "photos": sources.evaluations[catalog.DEPLOYED].photos,
        "engine": sources.engines[catalog.DEPLOYED],
    }
