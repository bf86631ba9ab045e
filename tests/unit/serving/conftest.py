"""A small network behind the service, and photos."""

import io

import pytest
from PIL import Image

from leanface.photos.load import load_photo
from leanface.serving.settings import Settings


@pytest.fixture(scope="session")
def settings(exported) -> Settings:
    return Settings(model=exported.int8, runtime="openvino", threads=1, time_limit_s=30.0, watch_drift=False)


def encoded(image: Image.Image, kind: str = "JPEG") -> bytes:
    buffer = io.BytesIO()
    image.save(buffer, kind)
    return buffer.getvalue()


@pytest.fixture(scope="session")
def photo() -> bytes:
    """A face, as a JPEG."""
    return encoded(Image.fromarray(load_photo("astronaut")).crop((120, 0, 360, 240)))


@pytest.fixture(scope="session")
def faceless() -> bytes:
    return encoded(Image.new("RGB", (200, 150), "teal"), "PNG")


@pytest.fixture(scope="session")
def bomb() -> bytes:
    """Some 10 kB that would become 240 MB."""
    content = encoded(Image.new("1", (9_000, 9_000)), "PNG")
    assert len(content) < 100_000
    return content


def hostile(photo: bytes, faceless: bytes) -> list[bytes]:
    """Files that are no photos, or nearly are."""
    webp = encoded(Image.new("RGB", (64, 64), "red"), "WEBP")
    return [
        b"",
        b"\0" * 1000,
        b"\xff\xd8\xff",
        b"\x89PNG\r\n\x1a\n",
        b"RIFF\xff\xff\xff\x7fWEBPVP8 ",
        b"GIF89a" + bytes(100),
        b"<svg xmlns='http://www.w3.org/2000/svg'/>",
        b'{"photo": "x"}',
        b"%PDF-1.7",
        encoded(Image.new("RGB", (64, 64)), "BMP"),
        encoded(Image.new("RGB", (64, 64)), "TIFF"),
        *(content[: len(content) * share // 8] for content in (photo, faceless, webp) for share in range(1, 8)),
        # Sizes that the pixels do not bear out: IHDR of the PNG, with its checksum wrong then.
        faceless[:16] + b"\x7f\xff\xff\xff\x7f\xff\xff\xff" + faceless[24:],
        faceless[:16] + bytes(8) + faceless[24:],
    ]


@pytest.fixture(scope="session", name="hostile")
def _hostile(photo: bytes, faceless: bytes) -> list[bytes]:
    return hostile(photo, faceless)
