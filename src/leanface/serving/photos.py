"""Decode photos from strangers."""

import io

import numpy as np
from jaxtyping import UInt8
from PIL import Image, UnidentifiedImageError

from leanface.errors import ArtifactError
from leanface.photos.load import load_photo
from leanface.serving.refusals import Refused

FORMATS = ("JPEG", "PNG", "WEBP")
"""Of photos; each further decoder is one more that strangers can attack."""

MIN_PX = 32


def decode(
    content: bytes, pixels_max: int, formats: tuple[str, ...] | None = FORMATS
) -> UInt8[np.ndarray, "height width 3"]:
    """Decode a photo's file upright; its size is judged before any pixel is decoded.

    Args:
        formats: Pillow's names of those to accept; None for all that it reads.

    Raises:
        Refused: it is no photo, or too large or too small.
    """
    try:
        with Image.open(io.BytesIO(content), formats=formats) as photo:
            width, height = photo.size
    except UnidentifiedImageError:  # its text holds an object's address
        expected = "send a whole JPEG, PNG or WebP file, without a form or JSON around it."
        raise Refused("not_a_photo", f"this is not a photo that can be read; {expected}") from None
    except (Image.DecompressionBombError, Image.DecompressionBombWarning) as error:
        raise Refused("too_large", str(error)) from None
    except Exception as error:  # Pillow raises OSError, SyntaxError, struct.error, ... depending on where it is damaged
        raise Refused("not_a_photo", f"the photo is damaged: {error}") from None
    if width * height > pixels_max:
        raise Refused("too_large", f"the photo has {width} x {height} pixels; at most {pixels_max:,} are read.")
    if min(width, height) < MIN_PX:
        raise Refused("no_face", f"the photo has {width} x {height} pixels: too few to show a face.")
    try:
        return load_photo(io.BytesIO(content))
    except ArtifactError as error:
        raise Refused("not_a_photo", str(error)) from None
