"""JPEG files joined from strips show what Pillow's own do, and PyTorch's are as close to the picture."""

import io

import numpy as np
import pytest
import torch
from jaxtyping import UInt8
from PIL import Image

from leanface.face import jpeg_torch
from leanface.face.jpeg import STRIP_PX, encode_jpeg


def _picture(height: int, width: int, noise: float) -> UInt8[np.ndarray, "H W 3"]:
    y, x = np.mgrid[:height, :width] / 9
    waves = np.stack([np.sin(x), np.cos(y), np.sin(x + y)], -1)
    noisy = np.random.default_rng(0).normal(0, noise, (height, width, 3))
    return (128 + 60 * waves + noisy).clip(0, 255).astype(np.uint8)


def _decoded(content: bytes) -> UInt8[np.ndarray, "H W 3"]:
    return np.asarray(Image.open(io.BytesIO(content)))


@pytest.mark.parametrize(
    ("height", "width"), [(40, 30), (STRIP_PX, 64), (STRIP_PX + 1, 33), (11 * STRIP_PX, 40), (1024, 1024)]
)
def test_strips_decode_to_the_same_pixels_as_one_piece(height: int, width: int) -> None:
    pixels = _picture(height, width, 20)
    whole = io.BytesIO()
    Image.fromarray(pixels).save(whole, "jpeg", quality=90)
    content = encode_jpeg(pixels, 90)
    assert np.array_equal(_decoded(content), _decoded(whole.getvalue()))
    assert len(content) < 1.02 * len(whole.getvalue()) + 100


@pytest.mark.parametrize("quality", [30, 90, 95])
@pytest.mark.parametrize("noise", [0, 20, 90])  # without any, many blocks end early; with much, none does
@pytest.mark.parametrize(("height", "width"), [(16, 16), (40, 30), (257, 33), (512, 512)])
def test_pytorch_encodes_as_well_as_pillow(height: int, width: int, noise: float, quality: int) -> None:
    pixels = _picture(height, width, noise)
    contents = encode_jpeg(pixels, quality), jpeg_torch.encode_jpeg(pixels, quality, torch.device("cpu"))
    errors = [np.square(_decoded(content) - pixels.astype(float)).mean() for content in contents]
    assert errors[1] < 1.02 * errors[0] + 0.1
    # Pillow leaves empty what lies beyond the picture; a marker for each row takes a few bytes.
    whole = height * width / (-(-height // 16) * -(-width // 16) * 256)
    assert len(contents[1]) * whole < 1.01 * len(contents[0]) + 6 * height / 16


def test_pytorch_codes_long_runs_of_zeros_and_steep_steps() -> None:
    """A lone high frequency follows up to 62 zeros; means step from black to white."""
    x = np.arange(8)
    lone = np.kron(
        np.ones((4, 4)), np.cos((2 * x[:, None] + 1) * 7 * np.pi / 16) * np.cos((2 * x + 1) * 7 * np.pi / 16)
    )
    board = np.kron(np.indices((4, 4)).sum(0) % 2, np.ones((8, 8)))
    for plane in (128 + 120 * lone, 255 * board):
        pixels = np.repeat(plane.clip(0, 255).astype(np.uint8)[..., None], 3, 2)
        shown = _decoded(jpeg_torch.encode_jpeg(pixels, 90, torch.device("cpu")))
        assert np.abs(shown.astype(int) - _decoded(encode_jpeg(pixels, 90))).max() <= 3
