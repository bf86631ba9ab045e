import io
import os
import struct
import threading
import zlib
from contextlib import suppress
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image, ImageCms

from leanface.errors import ArtifactError
from leanface.photos.kinds import first_bytes
from leanface.photos.load import PACKAGED_PHOTOS, load_photo, stored_pixels
from leanface.photos.pixels import require_rgb

ORIENTATION = 0x0112


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


UPRIGHT = np.zeros((48, 64, 3), dtype=np.uint8)
UPRIGHT[:16, :16] = (250, 20, 60)
UPRIGHT[:16, 32:] = (20, 60, 250)
UPRIGHT[32:, 48:] = (240, 240, 240)

STORED = {
    1: UPRIGHT,
    2: UPRIGHT[:, ::-1],
    3: UPRIGHT[::-1, ::-1],
    4: UPRIGHT[::-1],
    5: UPRIGHT.swapaxes(0, 1),
    6: np.rot90(UPRIGHT, 1),
    7: UPRIGHT[::-1, ::-1].swapaxes(0, 1),
    8: np.rot90(UPRIGHT, -1),
}
"""How a camera stores the same picture under each EXIF orientation (6: turn the stored one clockwise to see it)."""


@pytest.mark.parametrize("orientation", STORED)
@pytest.mark.parametrize(
    ("suffix", "options", "tolerance"),
    [
        ("png", {}, 0),
        ("tiff", {}, 0),
        ("webp", {"lossless": True}, 0),
        ("jpg", {"quality": 95, "subsampling": 0}, 12),
        ("avif", {"quality": 100, "subsampling": "4:4:4"}, 12),
    ],
    ids=["png", "tiff", "webp", "jpg", "avif"],
)
def test_every_exif_orientation_is_turned_upright(
    tmp_path: Path, orientation: int, suffix: str, options: dict[str, Any], tolerance: int
) -> None:
    exif = Image.Exif()
    exif[ORIENTATION] = orientation
    Image.fromarray(np.ascontiguousarray(STORED[orientation])).save(tmp_path / f"photo.{suffix}", exif=exif, **options)
    np.testing.assert_allclose(load_photo(tmp_path / f"photo.{suffix}").astype(int), UPRIGHT, atol=tolerance)


@pytest.mark.parametrize("orientation", [0, 9, 65535])
def test_an_orientation_that_exif_does_not_know_is_ignored(tmp_path: Path, orientation: int) -> None:
    exif = Image.Exif()
    exif[ORIENTATION] = orientation
    Image.fromarray(UPRIGHT).save(tmp_path / "photo.png", exif=exif)
    np.testing.assert_array_equal(load_photo(tmp_path / "photo.png"), UPRIGHT)


@pytest.mark.parametrize("mode", ["L", "LA", "RGBA", "P", "CMYK", "1", "YCbCr"])
def test_other_color_modes_become_rgb(tmp_path: Path, mode: str) -> None:
    """Black and white must come out as such: a mode taken for another one inverts or tints them."""
    path = tmp_path / "photo.tiff"
    picture = Image.fromarray(np.repeat(np.uint8([[[0]], [[255]]]), 6, axis=1).repeat(3, axis=2))
    picture.convert(mode).save(path)
    photo = load_photo(path)
    assert (photo[0] <= 1).all()
    assert (photo[1] >= 254).all()


@pytest.mark.parametrize("color", [(200, 40, 40), (40, 40, 200), (250, 250, 250), (10, 10, 10)])
def test_cmyk_jpegs_are_not_inverted(tmp_path: Path, color: tuple[int, int, int]) -> None:
    """Adobe's programs, and Pillow, store the inks inverted."""
    path = tmp_path / "photo.jpg"
    Image.new("RGB", (32, 32), color).convert("CMYK").save(path, quality=95)
    assert b"Adobe" in path.read_bytes()
    np.testing.assert_allclose(load_photo(path).mean((0, 1)), color, atol=4)


P3_LEVELS = ((255, 0, 0), (0, 255, 0), (180, 90, 40), (255, 255, 255), (128, 128, 128), (0, 0, 0))


def icc_profile(primaries: tuple[tuple[float, float, float], ...], description: str) -> bytes:
    """A display profile of these primaries (columns of XYZ at D50) with a gamma of 2.2."""

    def xyz(values: tuple[float, float, float]) -> bytes:
        return b"XYZ \0\0\0\0" + struct.pack(">3i", *(round(65536 * value) for value in values))

    text = description.encode()
    curve = b"curv\0\0\0\0" + struct.pack(">IH", 1, round(2.2 * 256)) + b"\0\0"
    tags = {
        b"desc": b"desc\0\0\0\0" + struct.pack(">I", len(text) + 1) + text + bytes(80),
        b"wtpt": xyz((0.9642, 1.0, 0.8249)),
        **{name: xyz(values) for name, values in zip((b"rXYZ", b"gXYZ", b"bXYZ"), primaries, strict=True)},
        **dict.fromkeys((b"rTRC", b"gTRC", b"bTRC"), curve),
    }
    table, body, offset = b"", b"", 128 + 4 + 12 * len(tags)
    for name, content in tags.items():
        padded = content + bytes(-len(content) % 4)
        table += struct.pack(">4sII", name, offset + len(body), len(content))
        body += padded
    head = struct.pack(">I4sI4s4s4s", 0, b"none", 0x02400000, b"mntr", b"RGB ", b"XYZ ") + bytes(12) + b"acsp"
    head += bytes(28) + struct.pack(">3i", 63190, 65536, 54061) + bytes(48)
    whole = head + struct.pack(">I", len(tags)) + table + body
    return struct.pack(">I", len(whole)) + whole[4:]


DISPLAY_P3 = icc_profile(((0.5151, 0.2412, -0.0011), (0.2920, 0.6922, 0.0419), (0.1571, 0.0666, 0.7841)), "Display P3")


@pytest.mark.parametrize(
    ("suffix", "mode"),
    [("png", "RGB"), ("png", "RGBA"), ("jpg", "RGB"), ("webp", "RGB"), ("tiff", "RGB"), ("avif", "RGB")],
)
def test_colors_of_display_p3_become_those_of_srgb(tmp_path: Path, suffix: str, mode: str) -> None:
    """By the matrices of both spaces, computed here in floating point; what sRGB cannot show is clipped."""
    srgb_from_p3 = np.array([[1.2249, -0.2247, 0], [-0.0420, 1.0419, 0], [-0.0197, -0.0786, 1.0979]])
    stored = np.array(P3_LEVELS, np.uint8)[None].repeat(16, 0).repeat(16, 1)
    options = {"jpg": {"quality": 100, "subsampling": 0}, "webp": {"lossless": True}, "avif": {"quality": 100}}
    path = tmp_path / f"photo.{suffix}"
    Image.fromarray(stored).convert(mode).save(path, icc_profile=DISPLAY_P3, **options.get(suffix, {}))
    light = ((stored / 255) ** 2.2 @ srgb_from_p3.T).clip(0, 1)
    expected = 255 * np.where(light <= 0.0031308, 12.92 * light, 1.055 * light ** (1 / 2.4) - 0.055)
    np.testing.assert_allclose(load_photo(path)[8, 8::16].astype(int), expected[8, 8::16], atol=5)


@pytest.mark.parametrize("profile", [b"", b"no profile", DISPLAY_P3[:200], DISPLAY_P3.replace(b"RGB ", b"CMYK")])
def test_a_profile_that_cannot_be_the_photo_s_is_ignored(tmp_path: Path, profile: bytes) -> None:
    Image.fromarray(UPRIGHT).save(tmp_path / "photo.png", icc_profile=profile)
    np.testing.assert_array_equal(load_photo(tmp_path / "photo.png"), UPRIGHT)


def test_a_profile_of_srgb_changes_no_level(tmp_path: Path) -> None:
    profile = ImageCms.ImageCmsProfile(ImageCms.createProfile("sRGB")).tobytes()
    Image.fromarray(UPRIGHT).save(tmp_path / "photo.png", icc_profile=profile)
    np.testing.assert_array_equal(load_photo(tmp_path / "photo.png"), UPRIGHT)


@pytest.mark.parametrize("mode", ["L", "LA", "P", "1", "CMYK"])
def test_a_profile_of_rgb_does_not_disturb_other_modes(tmp_path: Path, mode: str) -> None:
    picture = Image.fromarray(UPRIGHT).convert(mode)
    picture.save(tmp_path / "plain.tiff")
    picture.save(tmp_path / "photo.tiff", icc_profile=DISPLAY_P3)
    seen, plain = load_photo(tmp_path / "photo.tiff"), load_photo(tmp_path / "plain.tiff")
    assert seen.shape == UPRIGHT.shape
    if mode != "P":  # whose colors are RGB
        np.testing.assert_array_equal(seen, plain)


@pytest.mark.parametrize(
    ("suffix", "options"),
    [("png", {}), ("webp", {"lossless": True}), ("jpg", {"quality": 95}), ("avif", {"quality": 95})],
)
@pytest.mark.parametrize(
    "exif",
    [
        b"",
        b"no exif",
        b"Exif\0\0",
        b"Exif\0\0II*\0",
        b"Exif\0\0II*\0\xff\xff\xff\xff",
        b"Exif\0\0MM\0*\0\0\0\x08\0\x09",
        b"Exif\0\0II*\0\x08\0\0\0\x01\0\x12\x01\x02\0\xff\xff\0\0\xff\xff\0\0",
        b"II*\0\x08\0\0\0\xff\xff" + bytes(range(200)),
    ],
)
@pytest.mark.filterwarnings("ignore::UserWarning:PIL")
def test_damaged_exif_never_refuses_a_good_photo(
    tmp_path: Path, suffix: str, options: dict[str, Any], exif: bytes
) -> None:
    path = tmp_path / f"photo.{suffix}"
    Image.fromarray(UPRIGHT).save(path, **options)
    with suppress(Exception):  # what Pillow itself refuses to write
        Image.fromarray(UPRIGHT).save(tmp_path / f"damaged.{suffix}", exif=exif, **options)
        (tmp_path / f"damaged.{suffix}").rename(path)
    assert np.abs(load_photo(path).astype(int) - UPRIGHT).mean() < 6


def test_exif_data_of_any_bytes_never_refuses_a_png(tmp_path: Path) -> None:
    random, path = np.random.default_rng(0), tmp_path / "photo.png"
    Image.fromarray(UPRIGHT).save(path)
    whole = path.read_bytes()
    end = whole.index(b"IEND") - 4
    for _ in range(200):
        exif = b"II*\0\x08\0\0\0" + random.bytes(random.integers(0, 60))
        path.write_bytes(whole[:end] + chunk(b"eXIf", exif) + whole[end:])
        assert load_photo(path).size == UPRIGHT.size


@pytest.mark.parametrize(
    ("suffix", "form"),
    [
        ("avif", "AVIF"),
        ("jfif", "JPEG"),
        ("jpe", "JPEG"),
        ("gif", "GIF"),
        ("mpo", "MPO"),
        ("jp2", "JPEG2000"),
        ("bmp", "BMP"),
        ("ppm", "PPM"),
        ("tga", "TGA"),
        ("qoi", "QOI"),
        ("pcx", "PCX"),
        ("apng", "PNG"),
        ("heic", "JPEG"),
    ],
)
def test_a_file_is_read_by_its_content_whatever_its_name(tmp_path: Path, suffix: str, form: str) -> None:
    path = tmp_path / f"photo.{suffix}"
    Image.fromarray(UPRIGHT).save(path, form)
    assert np.abs(load_photo(path).astype(int) - UPRIGHT).mean() < 12


def test_the_first_of_several_pictures_is_read(tmp_path: Path) -> None:
    first, second = Image.fromarray(UPRIGHT), Image.new("RGB", (64, 48), "red")
    for suffix in ("gif", "png", "webp", "tiff", "avif", "mpo"):
        first.save(tmp_path / f"photo.{suffix}", save_all=True, append_images=[second])
        seen = load_photo(tmp_path / f"photo.{suffix}").astype(int)
        assert np.abs(seen - UPRIGHT).mean() < 15, suffix


def test_heic_is_read_upright(tmp_path: Path) -> None:
    pytest.importorskip("pi_heif")
    path = Path(__file__).parent / "turned.heic"
    photo = load_photo(path)
    assert photo.shape == UPRIGHT.shape
    assert np.abs(photo.astype(int) - UPRIGHT).mean() < 12


def test_what_is_no_photo_is_named_by_its_content(tmp_path: Path) -> None:
    heic = b"\0\0\0\x18ftypheic\0\0\0\0mif1heic"
    kinds = {"HEIC": heic, "is a video": b"\0\0\0\x18ftypisom" + bytes(20), "is empty": b"", "no image format": b"text"}
    for words, content in kinds.items():
        (tmp_path / "photo.jpg").write_bytes(content)
        for given in (tmp_path / "photo.jpg", io.BytesIO(content)):
            with pytest.raises(
                ArtifactError, match=words if "video" not in words or isinstance(given, Path) else "cannot"
            ) as refusal:
                load_photo(given)
            assert "0x" not in str(refusal.value)


def test_a_pipe_is_read_once(tmp_path: Path) -> None:
    """As shells give for <(command)."""
    pipe = tmp_path / "photo"
    os.mkfifo(pipe)
    content = io.BytesIO()
    Image.fromarray(UPRIGHT).save(content, "PNG")
    writer = threading.Thread(target=pipe.write_bytes, args=(content.getvalue(),))
    writer.start()
    assert stored_pixels(pipe) == 0
    assert first_bytes(pipe) == b""
    np.testing.assert_array_equal(load_photo(pipe), UPRIGHT)
    writer.join()


def test_camera_raw_is_refused_although_it_has_a_thumbnail(tmp_path: Path) -> None:
    Image.fromarray(UPRIGHT).save(tmp_path / "photo.dng", "TIFF")
    with pytest.raises(ArtifactError, match="camera raw: export it as JPEG or TIFF"):
        load_photo(tmp_path / "photo.dng")


def test_photos_beyond_pillow_s_limit_are_read_and_it_stays(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """As those of phones with 200 megapixels; a warning would fail this test."""
    Image.fromarray(UPRIGHT).save(tmp_path / "photo.png")
    for limit in (10, UPRIGHT.size // 3 - 1):
        monkeypatch.setattr(Image, "MAX_IMAGE_PIXELS", limit)
        np.testing.assert_array_equal(load_photo(tmp_path / "photo.png"), UPRIGHT)
        assert stored_pixels(tmp_path / "photo.png") == UPRIGHT.size // 3
        assert limit == Image.MAX_IMAGE_PIXELS
    assert stored_pixels(tmp_path / "none.png") == 0


def test_16_bit_gray_keeps_its_range(tmp_path: Path) -> None:
    levels = np.arange(256, dtype=np.uint16).reshape(16, 16)
    for path, pixels in ((tmp_path / "gray.png", levels * 257), (tmp_path / "gray.tiff", (levels * 257).astype(">u2"))):
        Image.fromarray(pixels).save(path)
        np.testing.assert_array_equal(load_photo(path), levels[..., None].repeat(3, 2))


@pytest.mark.parametrize(("color_type", "channels"), [(0, 1), (2, 3), (4, 2), (6, 4)], ids=["L", "RGB", "LA", "RGBA"])
def test_every_16_bit_png_becomes_8_bit(tmp_path: Path, color_type: int, channels: int) -> None:
    """Pillow cannot write most of these, so the file is made here."""
    levels = np.random.default_rng(0).integers(0, 256, (5, 7, channels))
    if channels in (2, 4):
        levels[..., -1] = 255
    (tmp_path / "photo.png").write_bytes(png_16_bit(levels * 257, color_type))
    color = levels[..., :1].repeat(3, 2) if channels < 3 else levels[..., :3]
    np.testing.assert_array_equal(load_photo(tmp_path / "photo.png"), color)


def png_16_bit(pixels: np.ndarray, color_type: int) -> bytes:
    height, width = pixels.shape[:2]
    rows = pixels.astype(">u2").reshape(height, -1)
    data = b"".join(b"\0" + row.tobytes() for row in rows)
    header = struct.pack(">IIBBBBB", width, height, 16, color_type, 0, 0, 0)
    return b"\x89PNG\r\n\x1a\n" + b"".join(
        chunk(*part) for part in ((b"IHDR", header), (b"IDAT", zlib.compress(data)), (b"IEND", b""))
    )


def chunk(name: bytes, data: bytes) -> bytes:
    return struct.pack(">I", len(data)) + name + data + struct.pack(">I", zlib.crc32(name + data))


@pytest.mark.parametrize("dtype", [np.float32, np.int32])
def test_pixels_without_a_known_white_are_refused(tmp_path: Path, dtype: type) -> None:
    Image.fromarray(np.ones((4, 6), dtype)).save(tmp_path / "photo.tiff")
    with pytest.raises(ArtifactError, match=r"do not say what white is.*8 or 16 bits per channel"):
        load_photo(tmp_path / "photo.tiff")


def test_a_decompression_bomb_is_refused_before_it_is_unpacked(tmp_path: Path) -> None:
    header = struct.pack(">IIBBBBB", 60_000, 60_000, 8, 2, 0, 0, 0)
    parts = ((b"IHDR", header), (b"IDAT", zlib.compress(bytes(1000))), (b"IEND", b""))
    bomb = b"\x89PNG\r\n\x1a\n" + b"".join(chunk(*part) for part in parts)
    (tmp_path / "bomb.png").write_bytes(bomb)
    with pytest.raises(ArtifactError, match=r"too large to be a photo.*3600000000 pixels"):
        load_photo(tmp_path / "bomb.png")


@pytest.mark.parametrize("suffix", ["png", "jpg", "webp", "tiff", "gif"])
def test_a_damaged_file_is_read_or_refused_but_never_crashes(tmp_path: Path, suffix: str) -> None:
    exif = Image.Exif()
    exif[ORIENTATION] = 6
    whole, path = tmp_path / f"whole.{suffix}", tmp_path / f"damaged.{suffix}"
    Image.fromarray(UPRIGHT).save(whole, exif=exif)
    content = np.frombuffer(whole.read_bytes(), np.uint8)
    random, refused = np.random.default_rng(0), 0
    for _ in range(150):
        damaged = content.copy()
        damaged[random.integers(0, len(content), 3)] = random.integers(0, 256, 3)
        path.write_bytes(damaged[: random.integers(len(content) // 2, len(content) + 1)].tobytes())
        try:
            require_rgb(load_photo(path))
        except ArtifactError:
            refused += 1
    assert refused > 50


def test_transparency_is_laid_on_white(tmp_path: Path) -> None:
    Image.new("RGBA", (6, 4), (0, 0, 0, 0)).save(tmp_path / "photo.png")
    assert (load_photo(tmp_path / "photo.png") == 255).all()


@pytest.mark.parametrize("mode", ["P", "LA", "L", "RGB"])
def test_transparency_of_other_modes_is_laid_on_white(tmp_path: Path, mode: str) -> None:
    if mode == "LA":
        Image.new("LA", (6, 4), (0, 0)).save(tmp_path / "photo.png")
    else:
        black = {"P": 0, "L": 0, "RGB": (0, 0, 0)}[mode]
        Image.new(mode, (6, 4), black).save(tmp_path / "photo.png", transparency=black)
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
