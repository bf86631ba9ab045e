"""What all faces of a morphable model share: the mesh, its decoder, and its UV layouts."""

import functools
from pathlib import Path

from leanface import paths
from leanface.face.decoder import Decoder
from leanface.face.morphable_model import load_morphable_model, load_shape_basis
from leanface.face.photo_texture import PhotoTexture
from leanface.face.texture import UvMap
from leanface.files import digest
from leanface.photos.alignment import template_from_landmarks3d


class Surface:
    """A morphable model, ready to decode and to be textured. Any threads may share it."""

    def __init__(self, path: Path = paths.PACKAGED_MORPHABLE_MODEL) -> None:
        """Load the model.

        Raises:
            ArtifactError: it is missing or damaged.
        """
        self._path = path
        self.model = load_morphable_model(path)
        self.decoder = Decoder(load_shape_basis(path), self.model.triangles.numpy())
        self.painter = PhotoTexture(self.model)
        self.landmarks = self.model.landmarks.numpy()
        self.template = template_from_landmarks3d(self.model.mean_vertices[self.model.landmarks].numpy())
        self.uv_map = functools.lru_cache(maxsize=2)(self._uv_map)

    @functools.cached_property
    def sha256(self) -> str:
        """Of the model's file."""
        return digest(self._path)

    def _uv_map(self, size: int) -> UvMap:
        """The whole head's layout on a texture of `size` pixels."""
        return UvMap(self.model, size, whole_head=True)
