"""Reads photos: two that are packaged, or any file."""

import io
import logging
import threading
import warnings
from collections.abc import Generator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, BinaryIO, cast

import numpy as np
from jaxtyping import UInt8
from PIL import ExifTags, Image, ImageCms, UnidentifiedImageError

from leanface import paths
from leanface.errors import ArtifactError
from leanface.photos.kinds import (
    HEAD_BYTES,
    NEEDS_HEIF,
    RAW_SUFFIXES,
    first_bytes,
    is_heif,
    is_video,
    reads_heif,
    why_unreadable,
)
from leanface.photos.pixels import BY_ORIENTATION, Turn

PACKAGED_PHOTOS = {
    "astronaut": paths.ASSETS / "photos" / "astronaut.png",
    "grace_hopper": paths.ASSETS / "photos" / "grace_hopper.jpg",
}
"""Name and file.

astronaut: Eileen Collins, NASA, public domain.
grace_hopper: Grace Hopper, official US Navy portrait, public domain.
"""

PIXELS_MAX = 2**28
"""More than any phone's photo has, and 0.8 GB as RGB."""

logger = logging.getLogger(__name__)
_opening = threading.Lock()
# Pillow warns of damaged EXIF data, which is ignored here.
warnings.filterwarnings("ignore", category=UserWarning, module=r"PIL\.TiffImagePlugin")

if reads_heif():
    from pi_heif import register_heif_opener  # pyright: ignore[reportMissingImports, reportUnknownVariableType]

    register_heif_opener(thumbnails=False)


def load_photo(name_or_path: str | Path | BinaryIO) -> UInt8[np.ndarray, "H W 3"]:
    """Read a photo as 8-bit sRGB, upright (by its EXIF orientation), without transparency (laid on white).

    Colors are converted from the photo's ICC profile. Damaged EXIF or ICC data is ignored.

    Args:
        name_or_path: a key of `PACKAGED_PHOTOS`, else the path of an image file, or an open one; of several frames, the
            first.

    Raises:
        ArtifactError: the file is missing, damaged, enormous, or not an image of up to 16 bits per channel.
    """
    path = photo_path(name_or_path) if isinstance(name_or_path, str | Path) else name_or_path
    if isinstance(path, Path) and path.suffix.lower() in RAW_SUFFIXES:
        raise ArtifactError(f"{path} cannot be read ({why_unreadable(path)}).")
    source = path
    try:
        if isinstance(path, Path) and path.is_fifo():  # Pillow would leave it open
            source = io.BytesIO(path.read_bytes())
        with _opened(source) as photo:
            pixels = photo.width * photo.height
            if pixels > PIXELS_MAX:
                raise Image.DecompressionBombError(f"{pixels} pixels; at most {PIXELS_MAX:,} are read")
            photo.load()
            turn = _turn(photo)  # some files have their EXIF data after the pixels
            rgb = _rgb(photo)
        return turn.apply(rgb)
    except FileNotFoundError as error:
        raise ArtifactError(
            f"no photo at {path}. Give the path of an image file, or one of {', '.join(PACKAGED_PHOTOS)}."
        ) from error
    except Image.DecompressionBombError as error:
        raise ArtifactError(f"{_named(path)} is too large to be a photo ({error}). Give a smaller one.") from error
    except MemoryError:
        raise
    except Exception as error:  # Pillow raises OSError, SyntaxError, struct.error, ... depending on where it is damaged
        reason = _what_it_is(source) if isinstance(error, UnidentifiedImageError) else error
        raise ArtifactError(
            f"cannot read {_named(path)} as a photo ({reason}). "
            "Give a whole JPEG, PNG or WebP file, of 8 or 16 bits per channel."
        ) from error


def stored_pixels(path: Path) -> int:
    """Count a photo's pixels without decoding them; 0 if the file cannot be read."""
    if not path.is_file():  # a pipe gives its bytes only once
        return 0
    try:
        with _opened(path) as photo:
            return photo.width * photo.height
    except Exception:  # as many kinds as there are formats; `load_photo` says what is wrong
        return 0


@contextmanager
def _opened(path: Path | BinaryIO) -> Generator[Image.Image]:
    """Open the file and read its header, whatever Pillow's own limit is: `load_photo` has one that fits photos."""
    with _opening:
        limit, Image.MAX_IMAGE_PIXELS = Image.MAX_IMAGE_PIXELS, None
        try:
            photo = Image.open(path)
        finally:
            Image.MAX_IMAGE_PIXELS = limit
    with photo:
        yield photo


def _turn(photo: Image.Image) -> Turn:
    try:
        return BY_ORIENTATION.get(photo.getexif().get(ExifTags.Base.Orientation, 1), Turn())
    except Exception as error:  # Pillow raises SyntaxError, struct.error, ... depending on where it is damaged
        logger.debug("ignored damaged EXIF data: %s", error)
        return Turn()


def _rgb(photo: Image.Image) -> UInt8[np.ndarray, "H W 3"]:
    if photo.mode in ("I", "F"):
        raise ValueError(f"its pixels are 32-bit numbers, mode {photo.mode}, which do not say what white is")
    stored, profile = photo.mode, photo.info.get("icc_profile")
    if stored.startswith("I;16"):
        # Pillow's own conversion clips at 255.
        photo = Image.fromarray((np.asarray(photo) >> 8).astype(np.uint8))
    elif photo.has_transparency_data and stored != "RGBA":
        photo = photo.convert("RGBA")
    elif stored == "P":
        photo = photo.convert("RGB")
    if profile:
        photo = _srgb(photo, profile, stored)
    if photo.mode == "RGBA":
        transparent, photo = photo, Image.new("RGB", photo.size, "white")
        photo.paste(transparent, mask=transparent)
    return np.array(photo if photo.mode == "RGB" else photo.convert("RGB"))


_PROFILE_MODES = {"RGB ": ("RGB", "RGBA", "P"), "GRAY": ("L", "I;16", "I;16B"), "CMYK": ("CMYK",), "Lab ": ("LAB",)}
"""Modes of files that a profile of each color space can be meant for."""


def _srgb(photo: Image.Image, profile: bytes, stored: str) -> Image.Image:
    """Convert from the ICC profile of a file of mode `stored`; ignore one that is sRGB, damaged or another mode's."""
    try:
        source = ImageCms.ImageCmsProfile(io.BytesIO(profile))
        about = cast(Any, source.profile)
        if (about.profile_description or "").startswith("sRGB"):
            return photo
        if stored not in _PROFILE_MODES.get(about.xcolor_space, ()):
            return photo
        target = "RGBA" if photo.mode == "RGBA" else "RGB"
        converted = ImageCms.profileToProfile(
            photo,
            source,
            ImageCms.ImageCmsProfile(ImageCms.createProfile("sRGB")),  # pyright: ignore[reportUnknownArgumentType]
            ImageCms.Intent.RELATIVE_COLORIMETRIC,
            target,
            photo.mode == target,  # in place
            ImageCms.Flags.BLACKPOINTCOMPENSATION,
        )
        return photo if converted is None else converted
    except (ImageCms.PyCMSError, OSError, ValueError) as error:
        logger.debug("ignored a damaged ICC profile: %s", error)
        return photo


def _what_it_is(path: Path | BinaryIO) -> str:
    """Say why a file is no photo, by its first bytes."""
    if isinstance(path, Path):
        head = first_bytes(path)
    else:
        path.seek(0)
        head = path.read(HEAD_BYTES)
    if not head:
        return "it is empty"
    if is_heif(head):
        return "its HEIC content is damaged" if reads_heif() else NEEDS_HEIF
    return "it is a video" if is_video(head) else "its content is of no image format known here"


def _named(path: Path | BinaryIO) -> str:
    return str(path) if isinstance(path, Path) else "what was sent"


def photo_path(name_or_path: str | Path) -> Path:
    """Return the file of a packaged photo, or the path itself."""
    found = PACKAGED_PHOTOS.get(name_or_path) if isinstance(name_or_path, str) else None
    return Path(name_or_path) if found is None else found
