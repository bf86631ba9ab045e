"""ModelScope's snapshot of cv_resnet50_face-reconstruction: a network and the morphable model that it reads."""

import contextlib
from pathlib import Path

from leanface.errors import ArtifactError

MODEL_ID = "damo/cv_resnet50_face-reconstruction"
CHECKPOINT = Path("pytorch_model.pt")
BASEL_MODEL = Path("assets/BFM_model_front.mat")


def find_snapshot() -> Path:
    """Find the folder in ModelScope's cache (MODELSCOPE_CACHE); download the two files if they are not there.

    Raises:
        ArtifactError: it is neither in the cache nor to be downloaded.
    """
    try:
        from modelscope_hub.compat.snapshot_download import snapshot_download  # pyright: ignore[reportUnknownVariableType]
        from modelscope_hub.errors import HubError
    except ImportError:
        raise ArtifactError(
            f"modelscope-hub, which finds and downloads {MODEL_ID}, is not installed: `pip install modelscope-hub`. "
            f"{_ELSEWHERE}"
        ) from None
    try:
        with contextlib.suppress(HubError, OSError, ValueError):
            cached = Path(snapshot_download(MODEL_ID, local_files_only=True))
            if all((cached / file).is_file() for file in (CHECKPOINT, BASEL_MODEL)):
                return cached
        return Path(snapshot_download(MODEL_ID, allow_patterns=[str(CHECKPOINT), str(BASEL_MODEL)]))
    except (HubError, OSError, ValueError) as error:
        raise ArtifactError(
            f"{MODEL_ID} is neither in ModelScope's cache nor to be downloaded ({type(error).__name__}: {error}). "
            f"Run this once where there is a network. {_ELSEWHERE}"
        ) from None


_ELSEWHERE = "Or name a folder that holds a copy: `path` and `morphable_model` in conf/teacher/modelscope.yaml."
