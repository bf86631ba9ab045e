"""Weights in the layout of Deep3DFaceRecon, which ModelScope's cv_resnet50_face-reconstruction has too."""

from pathlib import Path
from typing import Any, cast

import torch

from leanface.errors import ArtifactError
from leanface.modelscope_hub import CHECKPOINT, MODEL_ID, find_snapshot
from leanface.networks.resnet import FaceReconstructionNet

LIGHTING_HEAD = "4"
AMBIENT = 0.8
"""White light in the first band, from which Deep3DFaceRecon's lighting coefficients count."""


def load_modelscope(snapshot: Path | None = None) -> FaceReconstructionNet:
    """The network of a snapshot, in eval mode; None asks ModelScope's cache and, online, its hub.

    Raises:
        ArtifactError: the snapshot cannot be had, or is not this network.
    """
    folder = find_snapshot() if snapshot is None else snapshot
    if not (folder / CHECKPOINT).is_file():
        raise ArtifactError(f"{folder / CHECKPOINT} is missing; point teacher.path at a snapshot of {MODEL_ID}.")
    return load_checkpoint(folder / CHECKPOINT)


def load_checkpoint(path: Path) -> FaceReconstructionNet:
    """Load `net_recon` of a PyTorch checkpoint, strictly and without unpickling code; eval mode.

    Only the lighting head differs from the file: it is rewritten to answer in `leanface.face.coefficients`' terms.

    Raises:
        ArtifactError: the file is missing, damaged or holds another network.
    """
    try:
        checkpoint: Any = torch.load(path, map_location="cpu", weights_only=True)
    except FileNotFoundError:
        raise ArtifactError(f"{path} is missing; point teacher.path at a checkpoint.") from None
    except Exception as error:  # torch.load raises pickle, zip, EOF and runtime errors
        raise ArtifactError(f"{path} is not a checkpoint of plain weights: {error}") from None
    state: Any = cast(dict[str, Any], checkpoint).get("net_recon") if isinstance(checkpoint, dict) else None
    if state is None:
        raise ArtifactError(f"{path} has no entry `net_recon`: it is not a checkpoint in Deep3DFaceRecon's layout.")
    network = FaceReconstructionNet()
    try:
        network.load_state_dict(state, strict=True)
    except (RuntimeError, TypeError, AttributeError) as error:  # other keys or shapes; no tensors; no mapping
        raise ArtifactError(f"{path} does not hold the face reconstruction network: {error}") from None
    _convert_lighting(network)
    return network.eval()


@torch.no_grad()
def _convert_lighting(network: FaceReconstructionNet) -> None:
    """From 9 * channel + band, relative to ambient light, to 3 * band + channel, absolute."""
    head = network.final_layers.get_submodule(LIGHTING_HEAD)
    order = torch.arange(27).view(3, 9).T.flatten()
    for name in ("weight", "bias"):
        parameter = head.get_parameter(name)
        parameter.copy_(parameter[order])
    head.get_parameter("bias")[:3] += AMBIENT
