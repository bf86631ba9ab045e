"""Photos as files, and files that are none."""

import io

from PIL import Image

from leanface.photos.load import load_photo


def encoded(image: Image.Image, kind: str = "JPEG") -> bytes:
    buffer = io.BytesIO()
    image.save(buffer, kind)
    return buffer.getvalue()


def face() -> bytes:
    """A photo with one face, as a JPEG of 240 x 240 pixels."""
    return encoded(Image.fromarray(load_photo("astronaut")).crop((120, 0, 360, 240)))


def faceless() -> bytes:
    return encoded(Image.new("RGB", (200, 150), "teal"), "PNG")


def bomb() -> bytes:
    """Some 10 kB that would become 240 MB."""
    content = encoded(Image.new("1", (9_000, 9_000)), "PNG")
    assert len(content) < 100_000
    return content


def hostile() -> list[bytes]:
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
        *(content[: len(content) * share // 8] for content in (face(), faceless(), webp) for share in range(1, 8)),
        # Sizes that the pixels do not bear out: IHDR of the PNG, with its checksum wrong then.
        faceless()[:16] + b"\x7f\xff\xff\xff\x7f\xff\xff\xff" + faceless()[24:],
        faceless()[:16] + bytes(8) + faceless()[24:],
    ]
