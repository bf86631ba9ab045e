"""What to reconstruct: photos by file, folder or pattern, videos, webcams, standard input."""

import glob
import io
import re
import sys
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Literal, NoReturn

import numpy as np
from jaxtyping import UInt8

from leanface.errors import ArtifactError, LeanFaceError
from leanface.photos.kinds import Kind, first_bytes, is_video, kind_of, pick
from leanface.photos.load import PACKAGED_PHOTOS, load_photo, photo_path, stored_pixels
from leanface.photos.video import Video, open_camera, open_video

STDIN = "-"
WEBCAM = re.compile(r"webcam(?::(\d+))?")

Image8 = UInt8[np.ndarray, "H W 3"]


@dataclass(frozen=True)
class Source:
    """One photo, video or camera.

    Attributes:
        name: of its outputs, a relative path with "/"; unique among the sources.
        label: what the user calls it.
        path: None for standard input and cameras.
    """

    name: str
    label: str
    path: Path | None
    kind: Kind | Literal["webcam"] = "photo"


@dataclass(frozen=True)
class Picture:
    """A photo, or one frame of a video.

    Attributes:
        load: reads the pixels, in any thread; raises LeanFaceError if it cannot.
        seconds: when a frame is shown; None for a photo.
        pixels: how many there are; 0 if that is not known.
    """

    source: Source
    name: str
    load: Callable[[], Image8]
    seconds: float | None = None
    pixels: int = 0


def find_sources(inputs: Sequence[str]) -> list[Source]:
    """Files as given, folders searched through, patterns expanded (`**` too), in a stable order, each file once.

    The name of a packaged photo stands for it, where there is no such file.

    Raises:
        ArtifactError: an input is no file, or a folder or pattern has no photos and videos.
    """
    found: dict[str, tuple[str, Path | None, Kind | Literal["webcam"]]] = {}
    for text in inputs:
        if text == STDIN:
            found[text] = "stdin", None, "photo"
        elif camera := WEBCAM.fullmatch(text):
            found[text] = f"webcam_{camera[1] or 0}", None, "webcam"
        else:
            for root, path in _files(text):
                found.setdefault(str(path), (path.relative_to(root).as_posix(), path, _kind(path)))
    stems = [_stem(name) for name, _, _ in found.values()]
    taken: set[str] = set()
    sources: list[Source] = []
    for (label, (name, path, kind)), stem in zip(found.items(), stems, strict=True):
        # me.jpg and me.png keep their suffixes; two me.jpg of different folders get a number.
        unique = base = stem if stems.count(stem) == 1 else name
        number = 2
        while unique in taken:
            unique, number = f"{base}_{number}", number + 1
        taken.add(unique)
        sources.append(Source(unique, label, path, kind))
    return sources


def pictures(source: Source, every: int = 1, limit: int | None = None) -> Iterator[Picture]:
    """Yield the photo itself, or the frames one after another.

    What is wrong with a source is said by a last picture, named after the source, whose `load` raises it: a video that
    cannot be opened, one that ends before its time, a camera that is not there.

    Args:
        every: keep every Nth frame.
        limit: end after so many frames.
    """
    if source.kind == "photo":
        pixels = 0 if source.path is None else stored_pixels(source.path)
        yield Picture(source, source.name, lambda: _photo(source), pixels=pixels)
        return
    try:
        video = _open(source)
    except LeanFaceError as error:
        yield _refusal(source, error)
        return
    with video:
        for frame in video.frames(every, limit):
            yield Picture(source, f"{source.name}/{frame.index:06d}", frame.image, frame.seconds, frame.pixels)
    if video.loss is not None:
        yield _refusal(source, ArtifactError(video.loss))


def _files(text: str) -> list[tuple[Path, Path]]:
    """(folder that names are relative to, file) of one input."""
    path = Path(text)
    if path.is_dir():
        files = pick(sorted(file for file in path.rglob("*") if file.is_file()), text)
        if not files:
            raise ArtifactError(f"{path} holds no photos or videos that can be read; folders within it count too.")
        return [(path, file) for file in files]
    if text in PACKAGED_PHOTOS and not path.exists():
        file = photo_path(text)
        return [(file.parent, file)]
    # A file that is not there is reported with the others that cannot be read.
    if path.exists() or not glob.has_magic(text):
        return [(path.parent, path)]
    magic = next(index for index, part in enumerate(path.parts) if glob.has_magic(part))
    root = Path(*path.parts[:magic])
    files = pick(sorted(match for match in root.glob("/".join(path.parts[magic:])) if match.is_file()), text)
    if not files:
        raise ArtifactError(f"no photo or video matches {text!r}.")
    return [(root, file) for file in files]


def _kind(path: Path) -> Kind:
    """Of a file that was named, or found by its name."""
    return kind_of(path) or ("video" if is_video(first_bytes(path)) else "photo")


def _stem(name: str) -> str:
    return str(Path(name).with_suffix("")) if Path(name).suffix else name


def _photo(source: Source) -> Image8:
    if source.path is not None:
        return load_photo(source.path)
    content = sys.stdin.buffer.read()
    if not content:
        raise ArtifactError("standard input was empty; pipe a photo into it.")
    return load_photo(io.BytesIO(content))


def _open(source: Source) -> Video:
    if source.path is not None:
        return open_video(source.path)
    camera = WEBCAM.fullmatch(source.label)
    return open_camera(int((camera and camera[1]) or 0))


def _refusal(source: Source, error: LeanFaceError) -> Picture:
    def load() -> NoReturn:
        raise error

    return Picture(source, source.name, load)
