"""One variant's proof: its answers beside the original's and beside ground truth."""

import csv
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import NamedTuple

import numpy as np
import torch
from jaxtyping import Float, Float32
from torch import Tensor

from leanface.face.morphable_model import MorphableModel
from leanface.face.render import Renderer
from leanface.face.texture import UvMap
from leanface.files import staged_file
from leanface.metrics.estimate import Samples, means
from leanface.metrics.fidelity import render_likeness, uv_likeness
from leanface.metrics.geometry import geometry_errors, vertex_errors_mm
from leanface.synthesis.synthesis import population

Run = Callable[[Float32[np.ndarray, "batch 3 H W"]], Float32[np.ndarray, "batch 257"]]
"""A network in any runtime."""


class Comparison(NamedTuple):
    """What two networks read in the same images, and how alike that is, per image."""

    images: Float[Tensor, "batch 3 H W"]
    original: Float[Tensor, "batch 257"]
    compressed: Float[Tensor, "batch 257"]
    likeness: Samples


class Judge:
    """Compares networks by what their answers look like: rendered like the test faces, and as UV maps.

    Args:
        image_size: of the re-rendered faces (px).
        supersample: see `Renderer`.
        uv_size: of the UV maps (texels).
    """

    def __init__(self, model: MorphableModel, image_size: int, supersample: int, uv_size: int) -> None:
        self.model = model
        self.renderer = Renderer(model, image_size, supersample)
        self.uv_map = UvMap(model, uv_size)

    def compare(
        self, original: Run, compressed: Run, images: Float[Tensor, "batch 3 H W"], batch_size: int = 32
    ) -> Comparison:
        """Run both; measures as in `leanface.metrics.fidelity`, and original_ with `geometry_errors`."""
        theirs, ours = (_answers(run, images, batch_size) for run in (original, compressed))
        likeness = {
            **uv_likeness(self.model, self.uv_map, ours, theirs),
            **render_likeness(self.renderer, ours, theirs),
            **_prefixed("original_", geometry_errors(self.model, ours, theirs)),
        }
        return Comparison(images, theirs, ours, likeness)

    def errors(self, compressed: Float[Tensor, "batch 257"], truth: Float[Tensor, "batch 257"] | None) -> Samples:
        """`geometry_errors` against what the faces were rendered from, prefixed by truth_; {} for photos."""
        if truth is None:
            return {}
        return _prefixed("truth_", geometry_errors(self.model, compressed, truth))

    def error_fields_mm(
        self, compared: Comparison, truth: Float[Tensor, "batch 257"] | None
    ) -> dict[str, Float[Tensor, " vertices"]]:
        """Each vertex's mean distance to the original's reading, and to the truth where it is known."""
        references = {"To the original": compared.original} | ({} if truth is None else {"To the truth": truth})
        return {name: vertex_errors_mm(self.model, compared.compressed, each) for name, each in references.items()}

    def mean_face(
        self, original: Float[Tensor, "batch 257"], truth: Float[Tensor, "batch 257"] | None
    ) -> dict[str, float]:
        """What always answering with the average face would score: the mark that a network has to beat."""
        average, _ = population(self.model)
        constant = average.expand_as(original)
        return means(uv_likeness(self.model, self.uv_map, constant, original) | self.errors(constant, truth))


def write_samples(samples: Samples, path: Path) -> None:
    """CSV with a row per sample, a column per measure; undefined values are left empty."""
    with staged_file(path) as staging, staging.open("w", newline="", encoding="utf-8") as file:
        writer = csv.writer(file)
        writer.writerow(["sample", *samples])
        for index, row in enumerate(zip(*samples.values(), strict=True)):
            writer.writerow([index, *("" if np.isnan(value) else f"{value:.6g}" for value in row)])


def _answers(run: Run, images: Float[Tensor, "batch 3 H W"], batch_size: int) -> Float[Tensor, "batch 257"]:
    starts = range(0, len(images), batch_size)
    return torch.cat([torch.from_numpy(run(images[start : start + batch_size].numpy())) for start in starts])


def _prefixed(prefix: str, errors: Mapping[str, Tensor]) -> Samples:
    return {f"{prefix}{name}": values.double().numpy() for name, values in errors.items()}
