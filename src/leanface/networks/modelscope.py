"""ModelScope's own weights for face reconstruction (damo/cv_resnet50_face-reconstruction)."""

from pathlib import Path

import torch

from leanface.errors import ArtifactError
from leanface.networks.resnet import FaceReconstructionNet

MODEL_ID = "damo/cv_resnet50_face-reconstruction"
CHECKPOINT = "pytorch_model.pt"


def load_modelscope(snapshot: Path | None = None) -> FaceReconstructionNet:
    """Load `net_recon` of the checkpoint, strictly and without unpickling code; eval mode.

    Args:
        snapshot: a folder that holds pytorch_model.pt; None asks ModelScope's cache and, online, its hub.

    Raises:
        ArtifactError: the snapshot cannot be had, or is not this network.
    """
    folder = _find_snapshot() if snapshot is None else snapshot
    path = folder / CHECKPOINT
    if not path.exists():
        raise ArtifactError(f"{path} is missing; point teacher.modelscope_path at a snapshot of {MODEL_ID}.")
    try:
        checkpoint = torch.load(path, map_location="cpu", weights_only=True)
        state = checkpoint["net_recon"]
        network = FaceReconstructionNet()
        network.load_state_dict(state)
    except Exception as error:  # torch.load raises pickle, zip, EOF and runtime errors
        raise ArtifactError(f"{path} does not hold the face reconstruction network: {error}") from None
    return network.eval()


def _find_snapshot() -> Path:
    try:
        from modelscope_hub.compat.snapshot_download import snapshot_download  # pyright: ignore[reportUnknownVariableType]
        from modelscope_hub.errors import HubError
    except ImportError:
        raise ArtifactError(
            "modelscope-hub is not installed; `pip install modelscope-hub`, or set teacher.modelscope_path."
        ) from None
    try:
        try:
            return Path(snapshot_download(MODEL_ID, local_files_only=True))
        except (HubError, OSError, ValueError):
            return Path(snapshot_download(MODEL_ID))
    except (HubError, OSError, ValueError) as error:
        raise ArtifactError(
            f"{MODEL_ID} is neither in ModelScope's cache nor to be downloaded ({type(error).__name__}: {error}). "
            "Download it where there is a network, and set teacher.modelscope_path to its folder."
        ) from None
