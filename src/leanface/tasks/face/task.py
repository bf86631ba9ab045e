"""The face, as compression sees it."""

from collections.abc import Callable, Sequence
from typing import Self, cast

import numpy as np
import torch
from jaxtyping import Float
from torch import Tensor, nn

from leanface import paths
from leanface.catalog import FACE
from leanface.config import Data
from leanface.errors import ConfigError
from leanface.face.coefficients import HEAD_SIZES, LAYOUT, split
from leanface.face.errors import MM_PER_DM, face_bases, geometry_errors
from leanface.face.morphable_model import MorphableModel, load_morphable_model
from leanface.face.render import Renderer
from leanface.metrics.image import ssim
from leanface.synthesis.datamodule import FaceDataModule, Stream
from leanface.synthesis.dataset import FaceDataset
from leanface.synthesis.synthesis import population
from leanface.task import Deviation, Split, Terms
from leanface.tasks.face.layers import NAMING
from leanface.tasks.face.losses import TERMS, CoefficientLoss

DIGITS = 6
"""Decimals of a deviation: beyond them is rounding, and files of the same network should be the same."""


class FaceTask:
    """Outputs are the coefficients of `model`; implements `leanface.task.Task`.

    Attributes:
        model: what the coefficients mean.
        data: how faces are rendered; only streamed training data need it.
    """

    subject = FACE
    selection = "posed_mm"
    naming = NAMING

    def __init__(self, model: MorphableModel, data: Data | None = None) -> None:
        """Take a morphable model, and maybe how faces are rendered."""
        self.model = model
        self.data = data

    @classmethod
    def load(cls, data: Data | None = None) -> Self:
        """Take the morphable model that stage prepare wrote.

        Raises:
            ArtifactError: it is missing or damaged.
        """
        return cls(load_morphable_model(paths.MORPHABLE_MODEL), data)

    def to(self, device: torch.device | str) -> Self:
        """Move the model to a device, in place."""
        self.model.to(device)
        return self

    def split(self, name: str) -> FaceDataset:
        """Open the faces that stage prepare stored; see `leanface.task.Task.split`."""
        return FaceDataset(paths.FACES / name)

    def training_data(
        self,
        batch_size: int,
        seed: int,
        *,
        stream_sizes: tuple[int, ...] | None = None,
        device: torch.device | None = None,
        val: Split | None = None,
    ) -> FaceDataModule:
        """Return stored or streamed faces; see `leanface.task.Task.training_data`."""
        stream = None
        if stream_sizes is not None:
            assert self.data is not None
            assert device is not None
            stream = Stream(self.data, stream_sizes, device, paths.MORPHABLE_MODEL)
        return FaceDataModule(paths.FACES, batch_size, seed, stream, cast(FaceDataset | None, val))

    def output_scales(self) -> dict[str, float]:
        """Return the root mean square of the standard deviations of each head's outputs, by the head's name."""
        _, deviation = population(self.model)
        parts: tuple[Tensor, ...] = torch.split(deviation, list(HEAD_SIZES))
        return {f"final_layers.{head}": float(part.square().mean().sqrt()) for head, part in enumerate(parts)}

    def output_weights(self, outputs: Float[Tensor, "count 257"]) -> Float[Tensor, "257"]:
        """Turn squared errors of coefficients into fractions of a group's variance, summed over groups.

        Identity and expression count as the millimeters, albedo as the levels that they move on the face.

        Args:
            outputs: the teacher's, of more than one face; their variance is the scale.
        """
        variance = outputs.var(dim=0).clamp_min(1e-8)
        weights = 1 / variance
        bases = face_bases(self.model)
        for name, part in LAYOUT.items():
            effect = bases[name].square().sum(dim=1) if name in bases else weights[part]
            weights[part] = effect / (effect * variance[part]).sum()
        return weights

    def errors(self, predicted: Tensor, target: Tensor) -> dict[str, Float[Tensor, " batch"]]:
        """Measure millimeters, levels and degrees; see `leanface.face.errors.geometry_errors`."""
        return geometry_errors(self.model, predicted, target)

    def terms(self, names: Sequence[str], temperature: float) -> Terms:
        """Build error terms, the same against the teacher and against labels; see `leanface.task.Task.terms`."""
        if unknown := sorted(set(names) - set(TERMS)):
            raise ConfigError(f"distill.terms: there is no {', '.join(unknown)}; use {', '.join(TERMS)}.")
        terms = {name: TERMS[name](self.model) for name in names}
        return Terms(terms, terms)

    def whole_error(self) -> nn.Module:
        """Build the coefficients' error: the sum over groups of unexplained variance."""
        return CoefficientLoss(self.model)

    def deviation_from(self, outputs: Float[Tensor, "batch 257"], image_size: int) -> Callable[[Tensor], Deviation]:
        """Return what measures other outputs against these, in millimeters and by rendering."""
        return _Reading(outputs, self.model, image_size).deviation


class _Reading:
    """A network's reading of some faces, rendered once."""

    def __init__(self, coefficients: Float[Tensor, "batch 257"], model: MorphableModel, size: int) -> None:
        self.model, self.renderer = model, Renderer(model, size)
        self.vertices = self._vertices(coefficients)
        self.pictures = self._pictures(coefficients)
        self.faces = self.renderer.face_alpha(coefficients)[:, 0].numpy()

    def deviation(self, coefficients: Float[Tensor, "batch 257"]) -> Deviation:
        distances = (self._vertices(coefficients) - self.vertices).square().sum(-1).sqrt() * MM_PER_DM
        alike = [
            # Where the teacher shows no face, because it looks away, the whole frame counts.
            ssim(ours, theirs, data_range=1.0, mask=face if face.any() else None)
            for ours, theirs, face in zip(self._pictures(coefficients), self.pictures, self.faces, strict=True)
        ]
        return {
            "vertex_mm": round(float(distances.mean()), DIGITS),  # the shape alone, in the model's frame
            "ssim": round(sum(alike) / len(alike), DIGITS),  # shape, skin, pose and light
        }

    def _vertices(self, coefficients: Tensor) -> Float[Tensor, "batch vertices 3"]:
        parts = split(coefficients)
        return self.model.vertices(parts.identity, parts.expression)[:, self.model.face_mask]

    def _pictures(self, coefficients: Tensor) -> Float[np.ndarray, "batch H W 3"]:
        return self.renderer(coefficients).image.permute(0, 2, 3, 1).numpy()
