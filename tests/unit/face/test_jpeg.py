"""JPEG files joined from strips show what Pillow's own do."""

import io

import numpy as np
import pytest
from PIL import Image

from leanface.face.jpeg import STRIP_PX, encode_jpeg


@pytest.mark.parametrize(
    ("height", "width"), [(40, 30), (STRIP_PX, 64), (STRIP_PX + 1, 33), (11 * STRIP_PX, 40), (1024, 1024)]
)
def test_strips_decode_to_the_same_pixels_as_one_piece(height: int, width: int) -> None:
    y, x = np.mgrid[:height, :width] / 9
    noise = np.random.default_rng(0).normal(0, 20, (height, width, 3))
    pixels = (128 + 60 * np.stack([np.sin(x), np.cos(y), np.sin(x + y)], -1) + noise).clip(0, 255).astype(np.uint8)
    whole = io.BytesIO()
    Image.fromarray(pixels).save(whole, "jpeg", quality=90)
    content = encode_jpeg(pixels, 90)
    assert np.array_equal(np.asarray(Image.open(io.BytesIO(content))), np.asarray(Image.open(whole)))
    assert len(content) < 1.02 * len(whole.getvalue()) + 100
