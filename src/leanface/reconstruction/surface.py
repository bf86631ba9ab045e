"""What all faces of a morphable model share: the mesh, its decoder, and its UV layouts."""

import functools
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
from jaxtyping import Float32

from leanface import paths
from leanface.face.coefficients import EXPRESSION, IDENTITY
from leanface.face.decoder import Decoder
from leanface.face.geometry import METERS_PER_DM
from leanface.face.head_model import load_head_model
from leanface.face.jpeg import JpegEncoder, encode_jpeg
from leanface.face.photo_texture import PhotoTexture
from leanface.face.uv_layout import UvLayout
from leanface.files import digest
from leanface.photos.alignment import template_from_landmarks3d

if TYPE_CHECKING:
    from leanface.face.morphable_model import MorphableModel


class Surface:
    """A morphable model, ready to decode and to be textured. Any threads may share it.

    A pickle of it, or of a face, holds the model's path; it is loaded once where that is read.

    Attributes:
        encode_jpeg: what makes files of textures: a GPU where they are painted there.
    """

    encode_jpeg: JpegEncoder

    def __init__(self, path: Path = paths.PACKAGED_MORPHABLE_MODEL) -> None:
        """Load the model.

        Raises:
            ArtifactError: it is missing or damaged.
        """
        self.path = path
        self.head = load_head_model(path)
        self.decoder = Decoder(self.head)
        self.template = template_from_landmarks3d(self.head.mean_vertices[self.head.landmarks])
        self.layout = functools.lru_cache(maxsize=2)(self._layout)
        self.encode_jpeg = encode_jpeg

    def __reduce__(self) -> tuple[Callable[[Path], "Surface"], tuple[Path]]:
        return _unpickled, (self.path,)

    @functools.cached_property
    def model(self) -> "MorphableModel":
        """The same model in PyTorch, for what renders batches of heads."""
        from leanface.face.morphable_model import load_morphable_model

        return load_morphable_model(self.path)

    @functools.cached_property
    def expression_moves(self) -> Float32[np.ndarray, "components vertices 3"]:
        """What an expression coefficient of 1 moves, in meters."""
        head = self.head
        components = head.components[EXPRESSION]
        per_vertex = components.reshape(len(components), -1, 3).transpose(1, 0, 2)
        moves = head.subdivision.apply(per_vertex.reshape(len(per_vertex), -1))
        meters = np.float32(METERS_PER_DM) * moves.reshape(len(moves), len(components), 3)
        return np.ascontiguousarray(meters.transpose(1, 0, 2))

    @functools.cached_property
    def identity_scales_mm(self) -> Float32[np.ndarray, "80"]:
        """How far an identity coefficient of 1 moves vertices, as a root mean square."""
        moves = self.head.components[IDENTITY].reshape(IDENTITY.stop - IDENTITY.start, -1, 3)
        return np.float32(1e3 * METERS_PER_DM) * np.sqrt(np.square(moves).sum(-1).mean(-1))

    @functools.cached_property
    def painter(self) -> PhotoTexture:
        """What takes textures from photos."""
        return PhotoTexture(self.head.uv, self.head.triangles, self.head.mean_vertices)

    @functools.cached_property
    def sha256(self) -> str:
        """Of the model's file."""
        return digest(self.path)

    def _layout(self, size: int) -> UvLayout:
        """Return the whole head's layout on a texture of `size` pixels."""
        return UvLayout(self.head.uv, self.head.triangles, self.head.mean_vertices, size)


@functools.lru_cache(maxsize=1)
def _unpickled(path: Path) -> Surface:
    return Surface(path)
