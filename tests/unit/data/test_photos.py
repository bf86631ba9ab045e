from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from leanface.data.photos import PACKAGED_PHOTOS, load_photo, require_rgb
from leanface.errors import ArtifactError

ORIENTATION = 0x0112
ROTATED_90 = 6


@pytest.mark.parametrize(("name", "shape"), [("astronaut", (512, 512, 3)), ("grace_hopper", (600, 512, 3))])
def test_packaged_photos_are_rgb(name: str, shape: tuple[int, int, int]) -> None:
    photo = load_photo(name)
    assert photo.shape == shape
    require_rgb(photo)


def test_a_lossless_file_is_read_exactly(tmp_path: Path) -> None:
    pixels = np.random.default_rng(0).integers(0, 256, (7, 5, 3), dtype=np.uint8)
    Image.fromarray(pixels).save(tmp_path / "photo.png")
    np.testing.assert_array_equal(load_photo(tmp_path / "photo.png"), pixels)
    np.testing.assert_array_equal(load_photo(str(tmp_path / "photo.png")), pixels)


def test_exif_orientation_is_applied(tmp_path: Path) -> None:
    upright = np.zeros((40, 60, 3), dtype=np.uint8)
    upright[:, :20] = 255
    exif = Image.Exif()
    exif[ORIENTATION] = ROTATED_90  # "Turn the stored pixels clockwise to see them upright."
    stored = Image.fromarray(np.rot90(upright).copy())
    stored.save(tmp_path / "photo.png", exif=exif)
    np.testing.assert_array_equal(load_photo(tmp_path / "photo.png"), upright)


@pytest.mark.parametrize("mode", ["L", "RGBA", "P", "CMYK", "1"])
def test_other_colour_modes_become_rgb(tmp_path: Path, mode: str) -> None:
    path = tmp_path / "photo.tiff"
    Image.new("RGB", (6, 4), "white").convert(mode).save(path)
    np.testing.assert_array_equal(load_photo(path), np.full((4, 6, 3), 255, dtype=np.uint8))


def test_transparency_is_laid_on_white(tmp_path: Path) -> None:
    Image.new("RGBA", (6, 4), (0, 0, 0, 0)).save(tmp_path / "photo.png")
    assert (load_photo(tmp_path / "photo.png") == 255).all()


def test_a_missing_photo_lists_the_packaged_ones(tmp_path: Path) -> None:
    with pytest.raises(ArtifactError, match=", ".join(PACKAGED_PHOTOS)):
        load_photo(tmp_path / "nobody.jpg")


@pytest.mark.parametrize("content", [b"", b"no image", b"\x89PNG\r\n\x1a\n\x00\x00"])
def test_an_unreadable_photo_is_refused(tmp_path: Path, content: bytes) -> None:
    path = tmp_path / "photo.png"
    path.write_bytes(content)
    with pytest.raises(ArtifactError, match="cannot read"):
        load_photo(path)


def test_a_truncated_photo_is_refused(tmp_path: Path) -> None:
    whole = tmp_path / "whole.png"
    Image.fromarray(load_photo("astronaut")).save(whole)
    half = tmp_path / "half.png"
    half.write_bytes(whole.read_bytes()[:10_000])
    with pytest.raises(ArtifactError, match="cannot read"):
        load_photo(half)


def test_a_folder_is_refused(tmp_path: Path) -> None:
    with pytest.raises(ArtifactError):
        load_photo(tmp_path)


@pytest.mark.parametrize(
    "image",
    [
        np.zeros((4, 4), dtype=np.uint8),
        np.zeros((4, 4, 4), dtype=np.uint8),
        np.zeros((4, 4, 3), dtype=np.float32),
        np.zeros((0, 4, 3), dtype=np.uint8),
    ],
)
def test_require_rgb_refuses_anything_else(image: np.ndarray) -> None:
    with pytest.raises(ValueError, match="expected an RGB image"):
        require_rgb(image)
