"""`leanface drift`: whether photos look like what the network was trained on, before a service meets them."""

import logging
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from jaxtyping import Float

from leanface.errors import ArtifactError, reason
from leanface.monitoring.drift import FEATURES, Drift, Reference, Shift, features
from leanface.monitoring.population import Population
from leanface.reconstruction import LeanFace
from leanface.reconstruction.sources import find_sources, pictures
from leanface.serving.reference import reference_of, reference_path
from leanface.serving.settings import Settings

LISTED_MAX = 10
"""So many faces are also listed one by one."""

UNUSUAL = (0.01, 0.99)
"""Shares of training faces; a face beyond them is unusual in that feature."""

logger = logging.getLogger(__name__)


@dataclass(frozen=True)
class InputDrift:
    """Faces of photos against the training's.

    Attributes:
        names: of each face's photo.
        values: each face's `FEATURES`.
        percentiles: the share of training faces below each of them, 0 to 1.
        shifts: by feature, of all faces together.
    """

    names: tuple[str, ...]
    values: Float[np.ndarray, "faces 5"]
    percentiles: Float[np.ndarray, "faces 5"]
    shifts: dict[str, Shift]


def drift_of(inputs: Sequence[str], model: Path | None = None, runtime: str = "auto") -> InputDrift:
    """Read every face of photos, folders, patterns and videos; photos that cannot be read are told and left out.

    The reference is measured at the first use of a network, which takes some seconds, and kept.

    Raises:
        LeanFaceError: there are no such photos, none shows a face, or the network cannot be opened.
    """
    sources = find_sources(inputs)
    with LeanFace.load(model, runtime) as lean_face:
        population = Population.of_training(lean_face.surface.model)
        names: list[str] = []
        rows: list[np.ndarray] = []
        for picture in (picture for source in sources for picture in pictures(source)):
            try:
                crops = np.stack([crop.crop for crop in lean_face.crop(picture.load())])
                row = features(crops, lean_face.read(crops), population)
            except Exception as error:  # concerns this picture alone, whatever it is
                logger.warning("left out %s: %s", picture.name, reason(error))
                continue
            rows.append(row)
            names += [picture.name] * len(crops)
        if not rows:
            raise ArtifactError("none of the photos shows a face that could be read (see above).")
        path = reference_path(Settings.given({"model": model, "runtime": runtime}))
        if not path.exists():
            reference_of(lean_face).save(path)
        reference = Reference.load(path)
    return against(reference, names, np.concatenate(rows))


def against(reference: Reference, names: Sequence[str], values: Float[np.ndarray, "faces 5"]) -> InputDrift:
    """Compare these faces with the reference."""
    drift = Drift(reference, window=len(values))
    drift.record(values)
    shifts = drift.shifts()
    assert shifts is not None  # the window is just as long
    count = reference.values.shape[1]
    percentiles = np.empty(values.shape)
    for column, (known, seen) in enumerate(zip(reference.values, values.T, strict=True)):
        percentiles[:, column] = np.searchsorted(known, seen) / count
    return InputDrift(tuple(names), values, percentiles, shifts)


def markdown(drift: InputDrift) -> str:
    """Write tables to read."""
    low, high = UNUSUAL
    lines = [
        f"| faces: {len(drift.names)} | median | of training | beyond its 1 to 99 % | KS distance | limit | |",
        "|---|--:|--:|--:|--:|--:|---|",
    ]
    for place, (name, shift) in zip(drift.percentiles.T, drift.shifts.items(), strict=True):
        unusual = ((place < low) | (place > high)).sum()
        # With few faces no distance is beyond chance: it is 1 at most.
        verdict = "too few faces" if shift.limit >= 1 else "**drifted**" if shift.drifted else "as trained"
        numbers = f"{shift.median:.3g} | {shift.reference_median:.3g} | {unusual} | {shift.ks:.2f} | {shift.limit:.2f}"
        lines.append(f"| {name} | {numbers} | {verdict} |")
    if len(drift.names) <= LISTED_MAX:
        lines += ["", f"| face (percentile of training) | {' | '.join(FEATURES)} |", "|---|" + "--:|" * len(FEATURES)]
        for name, row, places in zip(drift.names, drift.values, drift.percentiles, strict=True):
            cells = (f"{value:.3g} ({100 * place:.0f})" for value, place in zip(row, places, strict=True))
            lines.append(f"| {name} | {' | '.join(cells)} |")
    return "\n".join(lines) + "\n"
