"""A full-width network in one small file: weights as int8 with a scale per output channel, the heads and the rest as
float32.

The packed network *is* the network: whoever ships it evaluates what the file unpacks to. A file may hold batch norm's
statistics for several image sizes, in place of one set (decision 9).
"""

import math
from collections.abc import Mapping
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from leanface.errors import ArtifactError
from leanface.files import staged_file
from leanface.networks.checkpoint import restore
from leanface.networks.resnet import FaceReconstructionNet
from leanface.paths import PRETRAINED_TEACHER, PRETRAINED_TEACHER_224

PRETRAINED_224_FROM_PX = 160
"""Half-way, by ratio, between the sizes that the two shipped networks are for."""

_SCALE = ".scale"
"""Ends the name of an int8 weight's scales."""

_AT = "@"
"""Stands between a statistic's name and the image size that it was measured at: `backbone.bn1.running_mean@112`."""

_STATISTICS = (".running_mean", ".running_var")

Statistics = Mapping[str, Tensor]
"""Every batch norm's running mean and variance, by their names in the network's state."""


def statistics_of(network: FaceReconstructionNet) -> Statistics:
    """Return a copy of a network's statistics."""
    return {name: value.clone() for name, value in network.state_dict().items() if name.endswith(_STATISTICS)}


def save_packed(network: FaceReconstructionNet, path: Path, statistics: Mapping[int, Statistics] | None = None) -> None:
    """Write a network; each convolution's weights are rounded to 127 levels per side of each output channel.

    The heads' are not: they are 2 % of the weights, and rounding them turns a face by 0.2 degrees.

    Args:
        statistics: by the image size that they were measured at, in place of the network's own.
    """
    arrays: dict[str, np.ndarray] = {}
    for name, tensor in network.state_dict().items():
        value = tensor.detach().cpu()
        if value.ndim == 4 and not name.startswith("final_layers."):
            scale = (value.flatten(1).abs().amax(1) / 127).clamp_min(1e-12)
            arrays[name] = (value / scale.view(-1, 1, 1, 1)).round().to(torch.int8).numpy()
            arrays[name + _SCALE] = scale.numpy()
        elif statistics and name.endswith(_STATISTICS):
            arrays |= {f"{name}{_AT}{size}": measured[name].cpu().numpy() for size, measured in statistics.items()}
        else:
            arrays[name] = value.numpy()
    with staged_file(path) as staging, staging.open("wb") as file:
        np.savez_compressed(file, allow_pickle=False, **arrays)


def load_packed(path: Path, image_size: int | None = None) -> FaceReconstructionNet:
    """Read a network, in eval mode.

    Args:
        image_size: which statistics are taken, where the file holds several: those of the nearest size by ratio. None:
            the largest size's.

    Raises:
        ArtifactError: the file is missing, truncated, or holds another network.
    """
    try:
        with path.open("rb") as file, np.load(file, allow_pickle=False) as packed:
            arrays = {name: torch.from_numpy(packed[name]) for name in packed.files}
        chosen = _at_size(arrays, image_size)
    except FileNotFoundError:
        raise ArtifactError(f"{path} is missing; reinstall LeanFace, or use `teacher: trained`.") from None
    except Exception as error:  # numpy raises zipfile, zlib, OSError or ValueError, depending on where it is cut
        raise ArtifactError(f"{path} is not a packed network ({error}); reinstall LeanFace.") from None
    state = {
        name: value.float() * chosen[name + _SCALE].view(-1, 1, 1, 1) if name + _SCALE in chosen else value
        for name, value in chosen.items()
        if not name.endswith(_SCALE)
    }
    network = FaceReconstructionNet()
    try:
        restore(network, state)
    except ValueError as error:
        raise ArtifactError(f"{path} holds another network: {error}") from None
    return network.eval()


def load_pretrained(image_size: int) -> FaceReconstructionNet:
    """Load the shipped original for images of a size (px), in eval mode.

    Raises:
        ArtifactError: its file is missing or damaged.
    """
    path = PRETRAINED_TEACHER_224 if image_size >= PRETRAINED_224_FROM_PX else PRETRAINED_TEACHER
    return load_packed(path, image_size)


def _at_size(arrays: Mapping[str, Tensor], image_size: int | None) -> dict[str, Tensor]:
    """Select one set of statistics, under a network's own names, and everything that is not in a set."""
    sizes = sorted({int(name.partition(_AT)[2]) for name in arrays if _AT in name})
    if not sizes:
        return dict(arrays)
    size = sizes[-1] if image_size is None else min(sizes, key=lambda size: abs(math.log(size / image_size)))
    suffix = f"{_AT}{size}"
    return {
        name.removesuffix(suffix): value for name, value in arrays.items() if _AT not in name or name.endswith(suffix)
    }
