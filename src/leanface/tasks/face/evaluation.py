"""Compare one network's predictions with the teacher's and with ground truth."""

from collections.abc import Callable, Mapping
from typing import NamedTuple

import numpy as np
import torch
from jaxtyping import Float, Float32
from torch import Tensor

from leanface.face.errors import geometry_errors, vertex_errors_mm
from leanface.face.morphable_model import MorphableModel
from leanface.face.render import Renderer
from leanface.face.uv_map import UvMap
from leanface.metrics.estimate import Samples, means
from leanface.synthesis.synthesis import population
from leanface.tasks.face.fidelity import render_similarity, uv_similarity

Run = Callable[[Float32[np.ndarray, "batch 3 H W"]], Float32[np.ndarray, "batch 257"]]
"""A network in any runtime."""


class Comparison(NamedTuple):
    """What two networks predict for the same images, and how alike that is, per image."""

    images: Float[Tensor, "batch 3 H W"]
    teacher: Float[Tensor, "batch 257"]
    student: Float[Tensor, "batch 257"]
    similarity: Samples


class Evaluator:
    """Compare networks by what their predictions look like: rendered like the test faces, and as UV maps.

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
        self, teacher: Run, student: Run, images: Float[Tensor, "batch 3 H W"], batch_size: int = 32
    ) -> Comparison:
        """Run both; measures as in `leanface.tasks.face.fidelity`, and `geometry_errors` prefixed by teacher_."""
        theirs, ours = (_predictions(run, images, batch_size) for run in (teacher, student))
        similarity = {
            **uv_similarity(self.model, self.uv_map, ours, theirs),
            **render_similarity(self.renderer, ours, theirs),
            **_prefixed("teacher_", geometry_errors(self.model, ours, theirs)),
        }
        return Comparison(images, theirs, ours, similarity)

    def errors(self, predicted: Float[Tensor, "batch 257"], truth: Float[Tensor, "batch 257"] | None) -> Samples:
        """Compute `geometry_errors` against what the faces were rendered from, prefixed by truth_; {} for photos."""
        if truth is None:
            return {}
        return _prefixed("truth_", geometry_errors(self.model, predicted, truth))

    def error_fields_mm(
        self, compared: Comparison, truth: Float[Tensor, "batch 257"] | None
    ) -> dict[str, Float[Tensor, " vertices"]]:
        """Compute each vertex's mean distance to the teacher's prediction, and to the truth where it is known."""
        references = {"To the original": compared.teacher} | ({} if truth is None else {"To the truth": truth})
        return {name: vertex_errors_mm(self.model, compared.student, each) for name, each in references.items()}

    def mean_face(
        self, teacher: Float[Tensor, "batch 257"], truth: Float[Tensor, "batch 257"] | None
    ) -> dict[str, float]:
        """Score a constant mean-face predictor, the baseline of every measure that needs neither pose nor light."""
        average, _ = population(self.model)
        constant = average.expand_as(teacher)
        return means(uv_similarity(self.model, self.uv_map, constant, teacher) | self.errors(constant, truth))


def _predictions(run: Run, images: Float[Tensor, "batch 3 H W"], batch_size: int) -> Float[Tensor, "batch 257"]:
    starts = range(0, len(images), batch_size)
    return torch.cat([torch.from_numpy(run(images[start : start + batch_size].numpy())) for start in starts])


def _prefixed(prefix: str, errors: Mapping[str, Tensor]) -> Samples:
    return {f"{prefix}{name}": values.double().numpy() for name, values in errors.items()}
