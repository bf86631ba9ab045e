"""From a photo to 3D faces: `LeanFace.load().reconstruct(photo)`."""

from leanface.reconstruction.lean_face import LeanFace
from leanface.reconstruction.result import Pose, Reconstruction

__all__ = ["LeanFace", "Pose", "Reconstruction"]
