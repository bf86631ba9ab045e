"""What a picture is here: upright RGB; checks it, and turns what a camera stored on its side."""

import struct
from typing import NamedTuple

import numpy as np
from jaxtyping import UInt8


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


class Turn(NamedTuple):
    """Rows and columns change places, and then each may be reversed: any of the eight ways to lay a picture."""

    swap: bool = False
    reverse_columns: bool = False
    reverse_rows: bool = False

    def apply(self, pixels: UInt8[np.ndarray, "H W 3"]) -> UInt8[np.ndarray, "h w 3"]:
        """Return the picture as it is to be seen, C-contiguous; the same array where nothing is to be done."""
        if self.swap:
            pixels = pixels.swapaxes(0, 1)
        rows, columns = (
            slice(None, None, -1 if reverse else 1) for reverse in (self.reverse_rows, self.reverse_columns)
        )
        return np.ascontiguousarray(pixels[rows, columns])


BY_ORIENTATION = {
    1: Turn(),
    2: Turn(reverse_columns=True),
    3: Turn(reverse_columns=True, reverse_rows=True),
    4: Turn(reverse_rows=True),
    5: Turn(swap=True),
    6: Turn(swap=True, reverse_columns=True),
    7: Turn(swap=True, reverse_columns=True, reverse_rows=True),
    8: Turn(swap=True, reverse_rows=True),
}
"""What brings a picture of each EXIF orientation upright."""


def by_display_matrix(matrix: bytes) -> Turn:
    """Read a display matrix: nine native 32-bit integers, of which the first two of each row map x and y.

    Turns by other than right angles, which cameras do not write, become the nearest right angle.

    Source: libavutil/display.h of FFmpeg; ISO/IEC 14496-12, 6.2.2.
    """
    a, b, _, c, d, _, _, _, _ = struct.unpack("9i", matrix[:36])
    if abs(a) + abs(d) >= abs(b) + abs(c):
        return Turn(False, a < 0, d < 0)
    return Turn(True, c < 0, b < 0)
