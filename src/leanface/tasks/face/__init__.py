"""A network that reads the 257 coefficients of a 3D morphable model out of an aligned photo of a face."""

from leanface.tasks.face.task import FaceTask

__all__ = ["FaceTask"]
