"""Small videos of the two packaged people."""

from collections.abc import Callable, Sequence
from fractions import Fraction
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from leanface.photos.load import load_photo

HEIGHT, WIDTH, HEAD, RATE_HZ = 360, 640, 200, 25


def two_heads() -> list[Image.Image]:
    boxes = {"astronaut": (130, 0, 330, 200), "grace_hopper": (110, 40, 400, 330)}
    return [Image.fromarray(load_photo(name)).crop(box).resize((HEAD, HEAD)) for name, box in boxes.items()]


def scene(*placed: tuple[Image.Image, int], background: int = 90) -> np.ndarray:
    """Draw heads at horizontal places."""
    canvas = Image.new("RGB", (WIDTH, HEIGHT), (background,) * 3)
    for head, left in placed:
        canvas.paste(head, (left, 80))
    return np.asarray(canvas)


def clip(
    path: Path,
    frames: Sequence[np.ndarray],
    times: Sequence[int] | None = None,
    setup: Callable[[Any], None] = lambda _: None,
) -> Path:
    """Encode pictures, each for itself, at these multiples of 1/25 s."""
    av: Any = pytest.importorskip("av")
    with av.open(str(path), "w") as container:
        stream = container.add_stream("mpeg4", rate=RATE_HZ)
        stream.height, stream.width = frames[0].shape[:2]
        stream.pix_fmt, stream.bit_rate, stream.gop_size = "yuv420p", 4_000_000, 1
        setup(stream)
        for index, pixels in enumerate(frames):
            frame = av.VideoFrame.from_ndarray(pixels, format="rgb24")
            frame.pts, frame.time_base = times[index] if times else index, Fraction(1, RATE_HZ)
            container.mux(stream.encode(frame))
        container.mux(stream.encode(None))
    return path
