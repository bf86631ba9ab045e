"""Deprecated alias of `leanface.photos.detector`, as it was named in 0.1."""

from leanface.photos.detector import FaceDetection, FaceDetector

__all__ = ["FaceDetection", "FaceDetector"]
