"""A texture averaged over the frames of a video: each texel counts most in those that show it from the front."""

import math

import numpy as np
from jaxtyping import Float32, UInt8

from leanface.reconstruction.result import Reconstruction
from leanface.reconstruction.surface import Surface

VIEW_RAD = math.radians(15)
"""Heads turned alike to this (pitch and yaw) show the same."""

AGAIN_SECONDS = 0.5
"""How long the same view adds nothing new: neighboring frames are alike, and painting takes longer than reading."""

UNSEEN = 1e-3
"""The weight of what no frame shows, where each texture continues what its own frame shows."""


class TextureAverage:
    """The average so far: memory for one texture in floating point, however many frames there are."""

    def __init__(self, surface: Surface, size: int) -> None:
        """Begin without a frame."""
        self._surface = surface
        self._layout = surface.layout(size)
        self._sum = np.zeros((size, size, 3), np.float32)
        self._weight = np.zeros((size, size, 1), np.float32)
        self._painted: dict[tuple[int, ...], float] = {}

    def wants(self, face: Reconstruction, seconds: float) -> bool:
        """Tell whether a face shows what has not been seen for a while; if so, it counts as seen now."""
        view = tuple(np.rint(face.pose.angles_rad[:2] / VIEW_RAD).astype(int).tolist())
        if seconds - self._painted.get(view, -math.inf) < AGAIN_SECONDS:
            return False
        self._painted[view] = seconds
        return True

    def add(self, face: Reconstruction, photo: UInt8[np.ndarray, "H W 3"]) -> None:
        """Add a textured face."""
        assert face.texture is not None
        normals = np.ascontiguousarray(face.normals @ face.pose.rotation.T)
        shown = self._surface.painter.visibility.weights(
            photo.shape, face.vertices_photo, face.vertices_camera, normals
        )
        # Squared: the more it faces the camera, the sharper it is.
        weight: Float32[np.ndarray, "size size 1"] = self._layout.sample(shown[:, None] ** 2) + np.float32(UNSEEN)
        self._sum += weight * face.texture
        self._weight += weight

    def average(self) -> UInt8[np.ndarray, "size size 3"]:
        """Return the texture; at least one face must have been added."""
        return (self._sum / self._weight).round().clip(0, 255).astype(np.uint8)
