"""Tells photos from videos, and names what is neither."""

import logging
from collections import Counter
from collections.abc import Iterable
from functools import cache
from importlib.util import find_spec
from pathlib import Path
from typing import Literal

Kind = Literal["photo", "video"]

logger = logging.getLogger(__name__)


def _suffixes(names: str) -> frozenset[str]:
    return frozenset(f".{name}" for name in names.split())


HEIF_SUFFIXES = _suffixes("heic heics heif heifs hif")
"""What phones write; Pillow reads it with the package pi-heif."""

PHOTO_SUFFIXES = HEIF_SUFFIXES | _suffixes(
    "apng avif avifs bmp dib gif j2c j2k jfi jfif jif jp2 jpc jpe jpeg jpf jpg jpx mpo pbm pcx pgm png pnm ppm psd qoi "
    "tga tif tiff webp"
)
VIDEO_SUFFIXES = _suffixes(
    "3g2 3gp asf avi divx dv f4v flv m2t m2ts m2v m4v mj2 mjpeg mjpg mkv mov mp4 mpe mpeg mpg mts mxf ogm ogv qt rm "
    "rmvb ts vob webm wmv y4m"
)

RAW_SUFFIXES = _suffixes(
    "3fr arw cr2 cr3 crw dcr dng erf fff iiq k25 kdc mef mos mrw nef nrw orf pef raf raw rw2 rwl sr2 srf srw x3f"
)
"""Camera raw. Pillow opens some of them, and finds only a thumbnail."""

NEEDS_HEIF = "HEIC photos need pi-heif: `pip install 'leanface[heic]'`"

TRANSPORT_SUFFIXES = frozenset({".m2t", ".m2ts", ".mts", ".ts"})
"""TypeScript files end in .ts and .mts, too: the content decides."""

_SIGNATURES = (
    (0, b"\x1aE\xdf\xa3"),  # Matroska, WebM
    (0, b"FLV\x01"),
    (0, b"OggS"),
    (0, b"\x30\x26\xb2\x75\x8e\x66\xcf\x11"),  # ASF, WMV
    (0, b"\x00\x00\x01\xba"),  # MPEG program stream
    (0, b"\x00\x00\x01\xb3"),
    (8, b"AVI "),
    (4, b"moov"),
    (4, b"mdat"),
)
_HEIF_BRANDS = {b"heic", b"heix", b"heim", b"heis", b"hevc", b"hevx", b"mif1", b"msf1"}
_AVIF_BRANDS = {b"avif", b"avis"}

HEAD_BYTES = 4 + 192 + 1
"""As much of a file as tells its kind."""


def kind_of(path: Path) -> Kind | None:
    """Tell what a file is by its name; None if it is neither a photo nor a video, or cannot be read here."""
    suffix = path.suffix.lower()
    if suffix in TRANSPORT_SUFFIXES:
        return "video" if _is_transport_stream(first_bytes(path)) else None
    if suffix in VIDEO_SUFFIXES:
        return "video"
    return "photo" if suffix in PHOTO_SUFFIXES and why_unreadable(path) is None else None


def why_unreadable(path: Path) -> str | None:
    """Say why a kind of photo is not read here, and what to do about it; None for any other file."""
    suffix = path.suffix.lower()
    if suffix in RAW_SUFFIXES:
        return "camera raw: export it as JPEG or TIFF"
    if suffix == ".jxl":
        return "JPEG XL: convert it to JPEG or PNG"
    return NEEDS_HEIF if suffix in HEIF_SUFFIXES and not reads_heif() else None


@cache
def reads_heif() -> bool:
    """Tell whether the package that reads HEIC is installed."""
    return find_spec("pi_heif") is not None


def first_bytes(path: Path) -> bytes:
    """Read as much of a file as tells its kind; nothing if it cannot be read."""
    if not path.is_file():  # a pipe gives its bytes only once
        return b""
    try:
        with path.open("rb") as file:
            return file.read(HEAD_BYTES)
    except OSError:
        return b""


def is_heif(head: bytes) -> bool:
    """Tell whether a file that begins so is a HEIC photo."""
    return head[4:8] == b"ftyp" and head[8:12] in _HEIF_BRANDS


def is_video(head: bytes) -> bool:
    """Tell whether a file that begins so is a video."""
    if head[4:8] == b"ftyp":
        return head[8:12] not in _HEIF_BRANDS | _AVIF_BRANDS
    return _is_transport_stream(head) or any(head[start:].startswith(magic) for start, magic in _SIGNATURES)


def pick(files: Iterable[Path], where: str | Path, kinds: tuple[Kind, ...] = ("photo", "video")) -> list[Path]:
    """Keep the files of these kinds in their order; count and say what is left out, but for hidden files."""
    picked: list[Path] = []
    others: list[Path] = []
    unreadable: dict[str, list[Path]] = {}
    for file in files:
        if file.name.startswith("."):
            continue
        if kind_of(file) in kinds:
            picked.append(file)
        elif reason := why_unreadable(file):
            unreadable.setdefault(reason, []).append(file)
        else:
            others.append(file)
    for reason, left_out in unreadable.items():
        logger.warning("left out of %s: %s (%s)", where, _counted_by_suffix(left_out), reason)
    if others:
        logger.info("passed over in %s, for being no %s: %s", where, " or ".join(kinds), _counted_by_suffix(others))
    return picked


def _counted_by_suffix(paths: Iterable[Path]) -> str:
    """Count files as in "12 .txt, 1 without a suffix"; the most frequent first."""
    counts = Counter(path.suffix.lower() or "without a suffix" for path in paths)
    ordered = sorted(counts.items(), key=lambda item: (-item[1], item[0]))
    return ", ".join(f"{count:,} {suffix}" for suffix, count in ordered)


def _is_transport_stream(head: bytes) -> bool:
    """Tell packets of 188 bytes, or of 192 with a time before each (AVCHD), by the G that each starts with."""
    pairs = ((0, 188), (4, 4 + 192))
    return any(head[first : first + 1] == head[second : second + 1] == b"G" for first, second in pairs)
