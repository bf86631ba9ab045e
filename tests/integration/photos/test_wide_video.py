"""Videos in HDR and wide colors, for which FFmpeg makes tables that take it seconds."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from tests.unit.photos.test_video import lossless, read

av: Any = pytest.importorskip("av")

BT2020_FROM_BT709 = np.array([[0.6274, 0.3293, 0.0433], [0.0691, 0.9195, 0.0114], [0.0164, 0.0880, 0.8956]])
"""Source: ITU-R BT.2087."""


def wide_frame(coded: np.ndarray) -> Any:
    """10-bit Y'CbCr of BT.2020's R'G'B' in [0, 1]."""
    red, green, blue = np.moveaxis(coded, -1, 0)
    luma = 0.2627 * red + 0.6780 * green + 0.0593 * blue
    planes = 64 + 876 * luma, 512 + 896 * (blue - luma) / 1.8814, 512 + 896 * (red - luma) / 1.4746
    frame = av.VideoFrame(coded.shape[1], coded.shape[0], "yuv444p10le")
    for plane, values in zip(frame.planes, planes, strict=True):
        padded = np.zeros((plane.height, plane.line_size // 2), np.uint16)
        padded[:, : coded.shape[1]] = np.rint(values)
        plane.update(padded)
    return frame


def pq(nits: np.ndarray) -> np.ndarray:
    """Source: SMPTE ST 2084."""
    power = (nits / 10_000) ** (2610 / 16_384)
    return ((3424 / 4096 + 2413 / 128 * power) / (1 + 2392 / 128 * power)) ** (2523 / 32)


def linear(levels: Sequence[tuple[int, int, int]]) -> np.ndarray:
    srgb = np.asarray(levels)[None].repeat(16, 0).repeat(16, 1) / 255
    return np.where(srgb <= 0.04045, srgb / 12.92, ((srgb + 0.055) / 1.055) ** 2.4)


def test_high_dynamic_range_is_brought_to_that_of_photos(tmp_path: Path) -> None:
    """White paper (203 cd/m2, ITU-R BT.2408) is white; what is brighter stays white."""
    levels = [(255, 255, 255), (180, 90, 40), (40, 90, 60), (128, 128, 128), (0, 0, 0)]
    light = 203 * linear(levels) @ BT2020_FROM_BT709.T
    light = np.concatenate([light, np.full((16, 16, 3), 1000.0)], axis=1)
    tags = {"colorspace": 9, "color_primaries": 9, "color_trc": 16}
    (frame,), _ = read(lossless(tmp_path / "clip.mkv", wide_frame(pq(light)), **tags))
    seen = frame.image()[8, 8::16].astype(int)
    np.testing.assert_allclose(seen, [*levels, (255, 255, 255)], atol=8)


def test_hlg_is_brought_to_that_of_photos(tmp_path: Path) -> None:
    """Reference white is at 75 % of the signal (ITU-R BT.2408); grays stay gray, and in order."""
    signal = np.repeat([0.0, 0.2, 0.4, 0.6, 0.75, 1.0], 16)[None, :, None].repeat(16, 0).repeat(3, 2)
    tags = {"colorspace": 9, "color_primaries": 9, "color_trc": 18}
    (frame,), _ = read(lossless(tmp_path / "clip.mkv", wide_frame(signal), **tags))
    seen = frame.image()[8, 8::16].astype(int)
    assert (np.ptp(seen, axis=1) <= 3).all()
    assert (np.diff(seen[:, 1])[:-1] > 20).all()
    assert seen[0].max() <= 3
    assert seen[4:].min() >= 250


def test_wide_colors_of_ordinary_brightness_are_converted(tmp_path: Path) -> None:
    levels = [(255, 255, 255), (180, 90, 40), (40, 90, 60)]
    shown = np.asarray(levels)[None].repeat(16, 0).repeat(16, 1) / 255
    coded = (shown**2.4 @ BT2020_FROM_BT709.T) ** (1 / 2.4)  # of a display (ITU-R BT.1886)
    tags = {"colorspace": 9, "color_primaries": 9, "color_trc": 14}
    (frame,), _ = read(lossless(tmp_path / "clip.mkv", wide_frame(coded), **tags))
    np.testing.assert_allclose(frame.image()[8, 8::16], levels, atol=8)
