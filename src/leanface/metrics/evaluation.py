"""One variant's proof: its answers beside the original's and beside ground truth, per sample and in the mean."""

import csv
import os
from collections.abc import Callable, Mapping
from dataclasses import asdict
from pathlib import Path
from typing import Any

import numpy as np
import torch
from jaxtyping import Float, Float32
from torch import Tensor

from leanface.face.morphable_model import MorphableModel
from leanface.face.render import Renderer
from leanface.face.texture import UvMap
from leanface.metrics.estimate import estimate
from leanface.metrics.fidelity import fidelity
from leanface.metrics.geometry import geometry_errors

Samples = dict[str, Float[np.ndarray, " batch"]]

BATCH_SIZE = 32


def answers(
    run: Callable[[Float32[np.ndarray, "batch 3 H W"]], Float32[np.ndarray, "batch 257"]],
    images: Float[Tensor, "count 3 H W"],
) -> Float[Tensor, "count 257"]:
    """Any runtime's coefficients for every image, in order."""
    return torch.cat([torch.from_numpy(run(batch.numpy()).copy()) for batch in images.split(BATCH_SIZE)])


def compare(
    model: MorphableModel,
    renderer: Renderer,
    uv_map: UvMap,
    predicted: Float[Tensor, "batch 257"],
    original: Float[Tensor, "batch 257"],
) -> Samples:
    """Likeness to the original's answers: `fidelity`, and `geometry_errors` under the prefix original_."""
    errors = geometry_errors(model, predicted, original)
    return fidelity(model, renderer, uv_map, predicted, original) | _prefixed("original_", errors)


def errors_against_truth(
    model: MorphableModel, predicted: Float[Tensor, "batch 257"], truth: Float[Tensor, "batch 257"]
) -> Samples:
    """`geometry_errors` against the coefficients that the faces were rendered from, under the prefix truth_."""
    return _prefixed("truth_", geometry_errors(model, predicted, truth))


def mean_face_errors(
    model: MorphableModel, mean: Float[Tensor, "257"], truth: Float[Tensor, "batch 257"]
) -> dict[str, float]:
    """What answering with the population's mean every time would score: the mark that a network has to beat."""
    samples = errors_against_truth(model, mean.expand_as(truth), truth)
    return {name: float(values.mean()) for name, values in samples.items()}


def summarize(samples: Samples) -> dict[str, dict[str, Any] | None]:
    """`estimate` of each measure, as JSON."""
    estimates = {name: estimate(values) for name, values in samples.items()}
    return {name: None if found is None else asdict(found) for name, found in estimates.items()}


def means(samples: Samples) -> dict[str, float]:
    """Mean of each measure over the samples that it is defined for; measures defined for none are left out."""
    return {name: float(np.nanmean(values)) for name, values in samples.items() if not np.isnan(values).all()}


def sample(samples: Samples, index: int) -> dict[str, float | None]:
    """One sample's measures, None where undefined."""
    return {name: None if np.isnan(values[index]) else float(values[index]) for name, values in samples.items()}


def write_samples(samples: Samples, path: Path) -> None:
    """CSV with a row per sample, a column per measure; undefined values are left empty."""
    path.parent.mkdir(parents=True, exist_ok=True)
    staging = path.with_name(f".{path.name}")
    with staging.open("w", newline="", encoding="utf-8") as file:
        writer = csv.writer(file)
        writer.writerow(["sample", *samples])
        for index, row in enumerate(zip(*samples.values(), strict=True)):
            writer.writerow([index, *("" if np.isnan(value) else f"{value:.6g}" for value in row)])
    os.replace(staging, path)


def _prefixed(prefix: str, errors: Mapping[str, Tensor]) -> Samples:
    return {f"{prefix}{name}": values.double().numpy() for name, values in errors.items()}
