"""A full-width network in one small file: weights as int8 with a scale per output channel, the heads and the rest as
float32.

The packed network *is* the network: whoever ships it evaluates what the file unpacks to.
"""

from pathlib import Path

import numpy as np
import torch

from leanface.errors import ArtifactError
from leanface.files import staged_file
from leanface.networks.checkpoint import restore
from leanface.networks.resnet import FaceReconstructionNet
from leanface.paths import PRETRAINED_TEACHER, PRETRAINED_TEACHER_224

PRETRAINED_224_FROM_PX = 160
"""Half-way, by ratio, between the sizes that the two shipped networks are for."""

_SCALE = ".scale"
"""Ends the name of an int8 weight's scales."""


def save_packed(network: FaceReconstructionNet, path: Path) -> None:
    """Write a network; each convolution's weights are rounded to 127 levels per side of each output channel.

    The heads' are not: they are 2 % of the weights, and rounding them turns a face by 0.2 degrees.
    """
    arrays: dict[str, np.ndarray] = {}
    for name, tensor in network.state_dict().items():
        value = tensor.detach().cpu()
        if value.ndim == 4 and not name.startswith("final_layers."):
            scale = (value.flatten(1).abs().amax(1) / 127).clamp_min(1e-12)
            arrays[name] = (value / scale.view(-1, 1, 1, 1)).round().to(torch.int8).numpy()
            arrays[name + _SCALE] = scale.numpy()
        else:
            arrays[name] = value.numpy()
    with staged_file(path) as staging, staging.open("wb") as file:
        np.savez_compressed(file, allow_pickle=False, **arrays)


def load_packed(path: Path) -> FaceReconstructionNet:
    """Read a network, in eval mode.

    Raises:
        ArtifactError: the file is missing, truncated, or holds another network.
    """
    try:
        with path.open("rb") as file, np.load(file, allow_pickle=False) as packed:
            arrays = {name: torch.from_numpy(packed[name]) for name in packed.files}
    except FileNotFoundError:
        raise ArtifactError(f"{path} is missing; reinstall LeanFace, or use `teacher: trained`.") from None
    except Exception as error:  # numpy raises zipfile, zlib, OSError or ValueError, depending on where it is cut
        raise ArtifactError(f"{path} is not a packed network ({error}); reinstall LeanFace.") from None
    state = {
        name: value.float() * arrays[name + _SCALE].view(-1, 1, 1, 1) if name + _SCALE in arrays else value
        for name, value in arrays.items()
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
    return load_packed(PRETRAINED_TEACHER_224 if image_size >= PRETRAINED_224_FROM_PX else PRETRAINED_TEACHER)
