"""The packaged networks that find faces: small ONNX files, run by ONNX Runtime in the thread that calls."""

from pathlib import Path
from typing import Any

import numpy as np
import onnxruntime
from jaxtyping import Float32

from leanface import paths
from leanface.errors import ArtifactError

ORT: Any = onnxruntime
"""Its functions and classes have no types."""

FACE_NETWORKS = paths.ASSETS / "faces"

ERRORS_ONLY = 3


class FaceNetwork:
    """One network. Any threads may share it; each computes for itself."""

    def __init__(self, path: Path) -> None:
        """Load the file.

        Raises:
            ArtifactError: it is missing or damaged.
        """
        options = ORT.SessionOptions()
        # Photos are searched side by side, each by one thread: threads within each would get in each other's way.
        options.intra_op_num_threads = options.inter_op_num_threads = 1
        options.log_severity_level = ERRORS_ONLY
        try:
            self._session = ORT.InferenceSession(path.read_bytes(), options, providers=["CPUExecutionProvider"])
        except Exception as error:  # ONNX Runtime's own types are private
            raise ArtifactError(
                f"the face detector's file {path} is missing or damaged ({error}). Restore it with "
                f"`git checkout -- src/leanface/assets/faces/{path.name}`, or reinstall LeanFace."
            ) from error
        (self._input,) = [source.name for source in self._session.get_inputs()]
        self.side: int = self._session.get_inputs()[0].shape[2]
        """Of the images that it takes (px), where that is fixed."""

    def __call__(self, images: Float32[np.ndarray, "N 3 side side"]) -> list[np.ndarray]:
        """Return all outputs of a batch, in the file's order."""
        return self._session.run(None, {self._input: images})
