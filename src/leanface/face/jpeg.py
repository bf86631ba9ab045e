"""JPEG files of large pictures, encoded in strips by several threads and joined at restart markers.

A decoder finds the same pixels as in a file that was encoded in one piece: strips end where blocks do.

Source: ITU-T T.81, B.1.1.2 (markers), B.2.2 (frame header), B.2.4.4 (restart interval) and E.1.4.
"""

import os
import struct
import tempfile
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from typing import BinaryIO

import numpy as np
from jaxtyping import UInt8
from PIL import Image

from leanface.device import usable_cores

BLOCK_PX = 16
"""Side of the squares that are coded together, as Pillow halves the resolution of color."""

STRIP_PX = 256
"""Height of a strip: the file does not depend on how many processors there are."""

JpegEncoder = Callable[[UInt8[np.ndarray, "H W 3"], int], bytes]
"""Encodes an RGB picture at a quality of Pillow, 1 to 95."""

FRAME, SCAN = 0xC0, 0xDA
"""Markers: the headers of a baseline frame and of its scan."""


def encode_jpeg(pixels: UInt8[np.ndarray, "H W 3"], quality: int) -> bytes:
    """Encode an RGB picture.

    Args:
        quality: of Pillow, 1 to 95.
    """
    height, width = pixels.shape[:2]
    strips = [pixels[top : top + STRIP_PX] for top in range(0, height, STRIP_PX)]
    with ThreadPoolExecutor(min(usable_cores(), len(strips))) as threads:
        encoded = list(threads.map(partial(encode_whole, quality), strips))
    if len(encoded) == 1:
        return encoded[0]
    header, scan = header_of(encoded[0], width, height, -(-width // BLOCK_PX) * (STRIP_PX // BLOCK_PX))
    # All strips have headers of the same length; what follows ends with the marker of the picture's end.
    return joined(header, [strip[scan:-2] for strip in encoded])


def segments(encoded: bytes) -> Iterator[tuple[int, int, int]]:
    """Yield the marker, begin and end of each segment of a header, in order; the scan's comes last."""
    marker, end = 0, 2
    while marker != SCAN:
        marker, start = encoded[end + 1], end
        end = start + 2 + struct.unpack_from(">H", encoded, start + 2)[0]
        yield marker, start, end


def header_of(encoded: bytes, width: int, height: int, interval: int) -> tuple[bytes, int]:
    """Return a picture's header, for another size and with restart markers, and where the codes begin in `encoded`.

    Args:
        interval: squares of BLOCK_PX between markers.
    """
    places = {marker: (start, end) for marker, start, end in segments(encoded)}
    header, (scan, end) = bytearray(encoded), places[SCAN]
    struct.pack_into(">HH", header, places[FRAME][0] + 5, height, width)
    return bytes(header[:scan] + struct.pack(">HHH", 0xFFDD, 4, interval) + header[scan:end]), end


def joined(header: bytes, parts: list[bytes]) -> bytes:
    """Put restart markers between the codes of a picture's parts, and its end behind the last."""
    marked = [part + bytes([0xFF, 0xD0 + number % 8]) for number, part in enumerate(parts[:-1])]
    return b"".join([header, *marked, parts[-1], b"\xff\xd9"])


def encode_whole(quality: int, pixels: UInt8[np.ndarray, "h W 3"]) -> bytes:
    """Encode an RGB picture in one piece."""
    with _file() as file:  # Pillow lets other threads run while it writes to a file of the system
        Image.fromarray(pixels).save(file, "jpeg", quality=quality)
        file.seek(0)
        return file.read()


def _file() -> BinaryIO:
    """Open a file in memory, or a temporary one where the system has none of these."""
    if hasattr(os, "memfd_create"):
        return os.fdopen(os.memfd_create("leanface"), "w+b")
    return tempfile.TemporaryFile()
