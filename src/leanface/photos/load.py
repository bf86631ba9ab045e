"""Photos: two with a clear licence that are installed with the project's libraries, or any file."""

from importlib.resources import files
from pathlib import Path
from typing import BinaryIO

import numpy as np
from jaxtyping import UInt8
from PIL import Image, ImageOps

from leanface.errors import ArtifactError

PACKAGED_PHOTOS = {
    "astronaut": ("skimage", "data/astronaut.png"),
    "grace_hopper": ("matplotlib", "mpl-data/sample_data/grace_hopper.jpg"),
}
"""Name, and the installed package and file that hold it.

astronaut: Eileen Collins, NASA, public domain.
grace_hopper: Grace Hopper, official US Navy portrait, public domain.
"""


def load_photo(name_or_path: str | Path | BinaryIO) -> UInt8[np.ndarray, "H W 3"]:
    """Read a photo as 8-bit RGB, upright (its EXIF orientation applied), without transparency (laid on white).

    Args:
        name_or_path: a key of `PACKAGED_PHOTOS`, else the path of an image file, or an open one; of several frames, the
            first.

    Raises:
        ArtifactError: the file is missing, damaged, enormous, or not an image of up to 16 bits per channel.
    """
    path = photo_path(name_or_path) if isinstance(name_or_path, str | Path) else name_or_path
    try:
        with Image.open(path) as photo:
            return _rgb(ImageOps.exif_transpose(photo))
    except FileNotFoundError as error:
        raise ArtifactError(
            f"no photo at {path}. Give the path of an image file, or one of {', '.join(PACKAGED_PHOTOS)}."
        ) from error
    except Image.DecompressionBombError as error:
        raise ArtifactError(f"{_named(path)} is too large to be a photo ({error}). Give a smaller one.") from error
    except Exception as error:  # Pillow raises OSError, SyntaxError, struct.error, ... depending on where it is damaged
        raise ArtifactError(
            f"cannot read {_named(path)} as a photo ({error}). Give a whole JPEG, PNG or WebP file, "
            "of 8 or 16 bits per channel."
        ) from error


def _rgb(photo: Image.Image) -> UInt8[np.ndarray, "H W 3"]:
    if photo.mode in ("I", "F"):
        raise ValueError(f"its pixels are 32-bit numbers, mode {photo.mode}, which do not say what white is")
    if photo.mode.startswith("I;16"):
        # Pillow's own conversion clips at 255.
        photo = Image.fromarray((np.asarray(photo) >> 8).astype(np.uint8))
    if photo.has_transparency_data:
        photo = photo.convert("RGBA")
        photo = Image.alpha_composite(Image.new("RGBA", photo.size, "white"), photo)
    return np.array(photo.convert("RGB"))


def require_rgb(image: UInt8[np.ndarray, "H W 3"]) -> None:
    """Refuse anything but a non-empty RGB photo.

    Raises:
        ValueError: the image is not a uint8 array of shape (H, W, 3).
    """
    if image.dtype != np.uint8 or image.ndim != 3 or image.shape[2] != 3 or image.size == 0:
        raise ValueError(
            f"expected an RGB image as a uint8 array of shape (H, W, 3), got {image.dtype} {image.shape}. "
            "Read files with leanface.photos.load.load_photo; scale floats in [0, 1] by 255 and round them."
        )


def _named(path: Path | BinaryIO) -> str:
    return str(path) if isinstance(path, Path) else "what was sent"


def photo_path(name_or_path: str | Path) -> Path:
    """The file of a packaged photo, or the path itself; errors as for `load_photo`."""
    if not isinstance(name_or_path, str) or name_or_path not in PACKAGED_PHOTOS:
        return Path(name_or_path)
    package, file = PACKAGED_PHOTOS[name_or_path]
    try:
        return Path(str(files(package) / file))
    except ModuleNotFoundError as error:
        raise ArtifactError(
            f"the photo '{name_or_path}' comes with the package {package}, which is not installed. "
            f"`pip install {package.replace('skimage', 'scikit-image')}`, or give a file's path."
        ) from error
