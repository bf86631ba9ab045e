"""How a network reads photos, of which no true coefficients are known: do its readings fit, and do they hold still?

    landmark_px         mean distance of the reading's five landmarks from the detected ones
    landmark_nme        the same, in percent of the interocular distance
    photometric_levels  RMS color difference (of 255) between the photo and the reading rendered over it, over the face
                        region as the reading shows it
    jitter_mm           standard deviation of the vertices over slightly different framings of the photo, shape only
    jitter_deg          the same of the pose, the known turn of each framing undone
    mirror_mm           mean vertex distance of the mirrored photo's reading from the mirrored reading
    mirror_deg          angle between the same two
    mirror_levels       RMS difference between the albedos of the same two
    from_mean_mm        mean vertex distance of the reading from the mean face

Holding still is easy for a network that answers the mean face to everything: hence from_mean_mm beside it. Where the
detector finds no face, landmark_px and landmark_nme are NaN; where the reading shows none, photometric_levels is.
"""

import math
from collections.abc import Sequence
from typing import Any, NamedTuple

import numpy as np
import torch
from jaxtyping import Float
from torch import Tensor, nn

from leanface.face.coefficients import split
from leanface.face.errors import LEVELS, MM_PER_DM
from leanface.face.landmarks import landmarks_image
from leanface.face.morphable_model import MorphableModel
from leanface.face.render import Renderer
from leanface.metrics.estimate import Samples, means, summarize
from leanface.photos.detector import PROPOSAL_PX, FaceDetector
from leanface.synthesis.synthesis import population
from leanface.tasks.face.jitter import SCALE, SHIFT, TURN_RAD, reframe, sample_jitter, spread, undo_turn
from leanface.tasks.face.landmarks import interocular_px, landmark_errors
from leanface.tasks.face.mirror import mirror_errors, mirror_of

BATCH_SIZE = 16
HEADLINES = ("landmark_nme", "photometric_levels", "jitter_mm", "jitter_deg", "mirror_mm", "mirror_deg", "from_mean_mm")


class PhotoReadings(NamedTuple):
    """What a network reads in photos, every measure of it, and what of these the mean face scores."""

    coefficients: Float[Tensor, "count 257"]
    samples: Samples
    mean_face: Samples


@torch.inference_mode()
def read_photos(
    network: nn.Module, renderer: Renderer, photos: Float[Tensor, "count 3 size size"], jitter_count: int
) -> PhotoReadings:
    """Read aligned photos and measure the readings.

    Args:
        renderer: of the photos' size.
        jitter_count: framings of each photo to read beside its own.
    """
    landmarks = detect_landmarks(photos)
    batches = [slice(start, start + BATCH_SIZE) for start in range(0, len(photos), BATCH_SIZE)]
    readings = [network(photos[part]).clone() for part in batches]
    average = population(renderer.model)[0][None]
    samples: list[Samples] = []
    constants: list[Samples] = []
    for part, reading in zip(batches, readings, strict=True):
        fit = fit_errors(renderer, reading, photos[part], landmarks[part])
        samples.append(fit | consistency(network, renderer.model, photos[part], reading, jitter_count))
        constants.append(fit_errors(renderer, average.expand_as(reading), photos[part], landmarks[part]))
    return PhotoReadings(torch.cat(readings), _joined(samples), _joined(constants))


def detect_landmarks(photos: Float[Tensor, "count 3 size size"]) -> Float[Tensor, "count 5 2"]:
    """Detect the largest face's landmarks in each crop, in its pixels; NaN where none is found."""
    # The alignment makes a face fill about half of its crop.
    detector = FaceDetector(min_face_px=max(PROPOSAL_PX, photos.shape[-1] // 4))
    pixels = (photos.clamp(0, 1) * 255).round().byte().permute(0, 2, 3, 1).numpy()
    found = [detector.detect(np.ascontiguousarray(image))[:1] for image in pixels]
    missing = np.full((5, 2), np.nan)
    return torch.from_numpy(np.stack([faces[0].landmarks if faces else missing for faces in found])).float()


@torch.inference_mode()
def fit_errors(
    renderer: Renderer,
    readings: Float[Tensor, "batch 257"],
    photos: Float[Tensor, "batch 3 size size"],
    landmarks: Float[Tensor, "batch 5 2"],
) -> Samples:
    """Measure landmark_px, landmark_nme and photometric_levels."""
    model, size = renderer.model, renderer.size
    errors = landmark_errors(landmarks_image(model, readings, size), landmarks, interocular_px(model, size))
    face = renderer.face_alpha(readings)
    squared = (renderer(readings).image - photos).square() * face
    # 0 / 0 is NaN: no face, no error.
    photometric = (squared.sum((1, 2, 3)) / (3 * face.sum((1, 2, 3)))).sqrt() * LEVELS
    return {name: values.double().numpy() for name, values in (errors | {"photometric_levels": photometric}).items()}


@torch.inference_mode()
def consistency(
    network: nn.Module,
    model: MorphableModel,
    photos: Float[Tensor, "batch 3 size size"],
    readings: Float[Tensor, "batch 257"],
    jitter_count: int,
) -> Samples:
    """Measure the jitter_, mirror_ and from_mean_ measures."""
    jitter = sample_jitter(jitter_count)
    spreads = [spread(model, undo_turn(network(reframe(photo, jitter)), jitter)) for photo in photos]
    mirrored = mirror_errors(model, mirror_of(model), readings, network(photos.flip(-1)))
    parts = split(readings)
    offsets = model.vertices(parts.identity, parts.expression) - model.mean_vertices
    from_mean = offsets[:, model.face_mask].square().sum(-1).sqrt().mean(1) * MM_PER_DM
    return {
        **{name: np.array([row[name] for row in spreads]) for name in spreads[0]},
        **{name: values.double().numpy() for name, values in mirrored.items()},
        "from_mean_mm": from_mean.double().numpy(),
    }


def photo_report(
    model: MorphableModel, names: Sequence[str], photos: PhotoReadings, **contrasts: PhotoReadings
) -> dict[str, Any]:
    """Return everything measured, as JSON: each photo, their summary, the mean face, and the same of other pictures.

    Args:
        names: of the photos, in order.
        contrasts: readings of other pictures by the same network, such as renders of the kind that it was trained on.
    """
    mirror = mirror_of(model)
    each = {
        name: {measure: _finite(values[index]) for measure, values in photos.samples.items()}
        for index, name in enumerate(names)
    }
    return {
        "count": len(names),
        "photos": each,
        "measures": summarize(photos.samples),
        "mean_face": means(photos.mean_face),
        "contrasts": {name: summarize(readings.samples) for name, readings in contrasts.items()},
        "mirror": {
            "pairs": "of a symmetric mesh" if mirror.symmetric else "nearest vertices",
            "residual_mm": mirror.residual_mm,
        },
        "jitter": {"shift": SHIFT, "scale": SCALE, "turn_deg": math.degrees(TURN_RAD)},
    }


def headline(readings: PhotoReadings) -> dict[str, float]:
    """Return the numbers to compare teachers by."""
    return {f"photo_{name}": value for name, value in means(readings.samples).items() if name in HEADLINES}


def _joined(parts: Sequence[Samples]) -> Samples:
    return {name: np.concatenate([part[name] for part in parts]) for name in parts[0]}


def _finite(value: float) -> float | None:
    return None if math.isnan(value) else float(value)
