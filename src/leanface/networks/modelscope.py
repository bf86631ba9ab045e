"""Weights in the layout of Deep3DFaceRecon, which ModelScope's cv_resnet50_face-reconstruction has too."""

from pathlib import Path

import torch

from leanface.errors import ArtifactError
from leanface.modelscope_hub import CHECKPOINT, MODEL_ID, find_snapshot
from leanface.networks.checkpoint import load_weights
from leanface.networks.resnet import FaceReconstructionNet

LIGHTING_HEAD = "4"
AMBIENT = 0.8
"""White light in the first band, from which Deep3DFaceRecon's lighting coefficients count."""


def load_modelscope(snapshot: Path | None = None) -> FaceReconstructionNet:
    """Load the network of a snapshot, in eval mode; None asks ModelScope's cache and, online, its hub.

    Raises:
        ArtifactError: the snapshot cannot be had, or is not this network.
    """
    folder = find_snapshot() if snapshot is None else snapshot
    if not (folder / CHECKPOINT).is_file():
        raise ArtifactError(f"{folder / CHECKPOINT} is missing; point teacher.path at a snapshot of {MODEL_ID}.")
    return load_checkpoint(folder / CHECKPOINT)


def load_checkpoint(path: Path) -> FaceReconstructionNet:
    """Load a network in Deep3DFaceRecon's layout from a PyTorch or safetensors file, strictly; eval mode.

    Only the lighting head differs from the file: it is rewritten to answer in `leanface.face.coefficients`' terms.

    Raises:
        ArtifactError: the file is missing, damaged or holds another network.
    """
    network = FaceReconstructionNet()
    load_weights(path, network)
    _convert_lighting(network)
    return network.eval()


@torch.no_grad()
def _convert_lighting(network: FaceReconstructionNet) -> None:
    """Convert from 9 * channel + band, relative to ambient light, to 3 * band + channel, absolute."""
    head = network.final_layers.get_submodule(LIGHTING_HEAD)
    order = torch.arange(27).view(3, 9).T.flatten()
    for name in ("weight", "bias"):
        parameter = head.get_parameter(name)
        parameter.copy_(parameter[order])
    head.get_parameter("bias")[:3] += AMBIENT
