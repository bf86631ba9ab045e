"""LeanFace: compress networks that read 3D faces out of photos, and use them.

    from leanface import LeanFace

    with LeanFace.load() as lean_face:
        for face in lean_face.reconstruct("me.jpg"):
            face.save_mesh("face.glb")

Names are imported when they are first used, so that `import leanface` takes no time.
"""

import importlib
import importlib.metadata
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from leanface.errors import LeanFaceError, NoFaceError
    from leanface.photos.load import load_photo
    from leanface.reconstruction import LeanFace, Pose, Reconstruction

    __version__: str

__all__ = ["LeanFace", "LeanFaceError", "NoFaceError", "Pose", "Reconstruction", "__version__", "load_photo"]

_HOMES = {
    "LeanFace": "leanface.reconstruction",
    "LeanFaceError": "leanface.errors",
    "NoFaceError": "leanface.errors",
    "Pose": "leanface.reconstruction",
    "Reconstruction": "leanface.reconstruction",
    "load_photo": "leanface.photos.load",
}


def __getattr__(name: str) -> object:
    if name == "__version__":
        return importlib.metadata.version("leanface")
    if name not in _HOMES:
        raise AttributeError(f"module 'leanface' has no attribute {name!r}")
    return getattr(importlib.import_module(_HOMES[name]), name)


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})
