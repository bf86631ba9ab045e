"""A full-width network in one small file: weights as int8 with a scale per output channel, the rest as float32.

The packed network *is* the network: whoever ships it evaluates what the file unpacks to.
"""

import os
from pathlib import Path

import numpy as np
import torch

from leanface.errors import ArtifactError
from leanface.networks.resnet import FaceReconstructionNet

_SCALE = ".scale"


def save_packed(network: FaceReconstructionNet, path: Path) -> None:
    """Write a network; each convolution's weights are rounded to 127 levels per side of each output channel."""
    arrays: dict[str, np.ndarray] = {}
    for name, tensor in network.state_dict().items():
        value = tensor.detach().cpu()
        if value.ndim == 4:
            scale = (value.flatten(1).abs().amax(1) / 127).clamp_min(1e-12)
            arrays[name] = (value / scale.view(-1, 1, 1, 1)).round().to(torch.int8).numpy()
            arrays[name + _SCALE] = scale.numpy()
        else:
            arrays[name] = value.numpy()
    staging = path.with_name(f".{path.name}.tmp")
    with staging.open("wb") as file:
        np.savez_compressed(file, allow_pickle=False, **arrays)
    os.replace(staging, path)


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
        network.load_state_dict(state)
    except RuntimeError as error:
        raise ArtifactError(f"{path} holds another network: {error}") from None
    return network.eval()
