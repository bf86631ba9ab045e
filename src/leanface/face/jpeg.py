"""JPEG files of large pictures, encoded in strips by several threads and joined at restart markers.

A decoder finds the same pixels as in a file that was encoded in one piece: strips end where blocks do.

Source: ITU-T T.81, B.1.1.2 (markers), B.2.2 (frame header), B.2.4.4 (restart interval) and E.1.4.
"""

import os
import struct
import tempfile
from collections.abc import Callable
from functools import partial
from typing import BinaryIO

import numpy as np
from jaxtyping import UInt8
from PIL import Image

from leanface.face.cores import on_all_cores

BLOCK_PX = 16
"""Side of the squares that are coded together, as Pillow halves the resolution of color."""

STRIP_PX = 256
"""Height of a strip: the file does not depend on how many processors there are."""

JpegEncoder = Callable[[UInt8[np.ndarray, "H W 3"], int], bytes]
"""Encodes an RGB picture at a quality of 1 to 95."""

FRAME, SCAN = 0xC0, 0xDA
"""Markers: the headers of a baseline frame and of its scan."""


def encode_jpeg(pixels: UInt8[np.ndarray, "H W 3"], quality: int) -> bytes:
    """Encode an RGB picture.

    Args:
        quality: of Pillow, 1 to 95.
    """
    height, width = pixels.shape[:2]
    strips = [pixels[top : top + STRIP_PX] for top in range(0, height, STRIP_PX)]
    encoded = on_all_cores(partial(_encode, quality), strips)
    if len(encoded) == 1:
        return encoded[0]
    header, start = bytearray(encoded[0]), 2
    while header[start + 1] != SCAN:
        if header[start + 1] == FRAME:
            struct.pack_into(">H", header, start + 5, height)
        start = _end(header, start)
    blocks = -(-width // BLOCK_PX) * (STRIP_PX // BLOCK_PX)
    parts = [bytes(header[:start]), struct.pack(">HHH", 0xFFDD, 4, blocks), header[start : _end(header, start)]]
    for number, strip in enumerate(encoded):
        # All strips have headers of the same length; what follows ends with the marker of the picture's end.
        parts += [strip[_end(header, start) : -2], bytes([0xFF, 0xD0 + number % 8])]
    return b"".join([*parts[:-1], encoded[-1][-2:]])


def _end(content: bytearray, segment: int) -> int:
    """Return where the segment that begins here ends."""
    return segment + 2 + struct.unpack_from(">H", content, segment + 2)[0]


def _encode(quality: int, pixels: UInt8[np.ndarray, "h W 3"]) -> bytes:
    with _file() as file:  # Pillow lets other threads run while it writes to a file of the system
        Image.fromarray(pixels).save(file, "jpeg", quality=quality)
        file.seek(0)
        return file.read()


def _file() -> BinaryIO:
    """Open a file in memory, or a temporary one where the system has none of these."""
    if hasattr(os, "memfd_create"):
        return os.fdopen(os.memfd_create("leanface"), "w+b")
    return tempfile.TemporaryFile()
