"""How far small changes of a network, made one at a time, move what it reads in a face.

Up to the block in which a change is made the network computes what it always does, so each change only reruns the rest.
"""

from collections.abc import Callable, Mapping, Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass
from typing import NamedTuple, TypeVar

import numpy as np
import torch
from jaxtyping import Float
from torch import Tensor, nn

from leanface.face.coefficients import split
from leanface.face.morphable_model import MorphableModel
from leanface.face.render import Renderer
from leanface.metrics.geometry import MM_PER_DM
from leanface.metrics.image import ssim
from leanface.networks.resnet import STAGE_DEPTHS, FaceReconstructionNet

DIGITS = 6
"""Decimals of a deviation: beyond them is rounding, and files of the same network should be the same."""


@dataclass(frozen=True)
class Deviation:
    """How far a changed network's reading is from the original's own; means over faces.

    Attributes:
        vertex_mm: distance of the face region's vertices in the model's frame: the shape alone.
        ssim: of the re-rendered faces, over the face region as the original shows it: shape, skin, pose and light.
    """

    vertex_mm: float
    ssim: float


class Change(NamedTuple):
    """Something done to a network for one measurement.

    Attributes:
        first: the convolution whose answer changes; of several, the first in order of execution.
        made: opens a context in which the network is changed, and after which it is as before.
    """

    first: str
    made: Callable[[], AbstractContextManager[None]]


Key = TypeVar("Key")


@torch.no_grad()
def deviations(
    network: FaceReconstructionNet,
    images: Float[Tensor, "batch 3 height width"],
    model: MorphableModel,
    changes: Mapping[Key, Change],
) -> dict[Key, Deviation]:
    """What each change alone does to the readings of a network in eval mode, in the order of `changes`."""
    names, steps = zip(*_steps(network).items(), strict=True)
    starts = {key: _step_of(change.first, names) for key, change in changes.items()}
    original = _Reading(network(images), model, images.shape[-1])
    found: dict[Key, Deviation] = {}
    x = images
    for place, step in enumerate(steps):
        for key in (key for key, start in starts.items() if start == place):
            with changes[key].made():
                found[key] = original.deviation(_run(steps[place:], x))
        x = step(x)
    return {key: found[key] for key in changes}


class _Reading:
    """The original's reading of some faces, rendered once."""

    def __init__(self, coefficients: Float[Tensor, "batch 257"], model: MorphableModel, size: int) -> None:
        self.model, self.renderer = model, Renderer(model, size)
        self.vertices = self._vertices(coefficients)
        self.pictures = self._pictures(coefficients)
        self.faces = self.renderer.face_alpha(coefficients)[:, 0].numpy()

    def deviation(self, coefficients: Float[Tensor, "batch 257"]) -> Deviation:
        distances = (self._vertices(coefficients) - self.vertices).square().sum(-1).sqrt() * MM_PER_DM
        alike = [
            # Where the original shows no face, because it looks away, the whole frame counts.
            ssim(ours, theirs, data_range=1.0, mask=face if face.any() else None)
            for ours, theirs, face in zip(self._pictures(coefficients), self.pictures, self.faces, strict=True)
        ]
        return Deviation(round(float(distances.mean()), DIGITS), round(sum(alike) / len(alike), DIGITS))

    def _vertices(self, coefficients: Tensor) -> Float[Tensor, "batch vertices 3"]:
        parts = split(coefficients)
        return self.model.vertices(parts.identity, parts.expression)[:, self.model.face_mask]

    def _pictures(self, coefficients: Tensor) -> Float[np.ndarray, "batch H W 3"]:
        return self.renderer(coefficients).image.permute(0, 2, 3, 1).numpy()


Step = Callable[[Tensor], Tensor]


def _steps(network: FaceReconstructionNet) -> dict[str, Step]:
    """The network cut where nothing but one feature map passes, by what its convolutions' names begin with."""
    backbone = network.backbone
    blocks = [f"backbone.layer{stage}.{place}" for stage, depth in enumerate(STAGE_DEPTHS, 1) for place in range(depth)]
    return {
        "backbone.conv1": nn.Sequential(backbone.conv1, backbone.bn1, backbone.relu, backbone.maxpool),
        **{name: network.get_submodule(name) for name in blocks},
        "final_layers": lambda x: network.predict(backbone.avgpool(x)),
    }


def _step_of(conv: str, steps: Sequence[str]) -> int:
    return next(place for place, step in enumerate(steps) if f"{conv}.".startswith(f"{step}."))


def _run(steps: Sequence[Step], x: Tensor) -> Tensor:
    for step in steps:
        x = step(x)
    return x
