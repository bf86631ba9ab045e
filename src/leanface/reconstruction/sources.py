"""What to reconstruct: photos by file, folder or pattern, videos, webcams, standard input."""

import glob
import io
import logging
import os
import re
import sys
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Literal, NamedTuple, NoReturn

import numpy as np
from jaxtyping import UInt8

from leanface.errors import ArtifactError, LeanFaceError
from leanface.photos.kinds import Kind, first_bytes, is_video, kind_of, pick
from leanface.photos.load import PACKAGED_PHOTOS, load_photo, photo_path, stored_pixels
from leanface.photos.video import Video, open_camera, open_video
from leanface.photos.walk import matches, walk
from leanface.reconstruction.names import result_names

STDIN = "-"
WEBCAM = re.compile(r"webcam(?::(\d+))?")

Image8 = UInt8[np.ndarray, "H W 3"]

logger = logging.getLogger(__name__)


@dataclass(frozen=True)
class Source:
    """One photo, video or camera.

    Attributes:
        name: of its outputs, a relative path with "/"; unique among the sources.
        label: what the user calls it.
        path: None for standard input and cameras.
        problem: why it gives no picture, if that is known beforehand.
    """

    name: str
    label: str
    path: Path | None
    kind: Kind | Literal["webcam"] = "photo"
    problem: str | None = None


@dataclass(frozen=True)
class Picture:
    """A photo, or one frame of a video.

    Attributes:
        load: reads the pixels, in any thread; raises LeanFaceError if it cannot.
        seconds: when a frame is shown; None for a photo.
        pixels: how many there are; 0 if that is not known.
        total: how many frames the video gives, as far as it says.
    """

    source: Source
    name: str
    load: Callable[[], Image8]
    seconds: float | None = None
    pixels: int = 0
    total: int | None = None


def find_sources(inputs: Sequence[str]) -> list[Source]:
    """Find photos and videos: files as given, folders searched through, patterns expanded (`**` too), each file once.

    The name of a packaged photo stands for it, where there is no such file. Hidden files and folders and LeanFace's own
    results are passed over, unless they are named themselves. An input that gives nothing becomes a source that says so
    when it is read, so that the others are done.

    Raises:
        ArtifactError: there is no photo or video at all.
    """
    found: dict[str, _Input] = {}
    for text in inputs:
        if text == STDIN:
            found[text] = _Input("stdin", text, None, "photo")
        elif camera := WEBCAM.fullmatch(text):
            found[text] = _Input(f"webcam_{camera[1] or 0}", text, None, "webcam")
        else:
            try:
                items = _files(text)
            except OSError as error:  # in a folder that may not be entered, or its name is too long
                items = [_nothing(text, f"{text} cannot be read: {error.strerror}.")]
            for item in items:
                found.setdefault(text if item.path is None else os.path.normpath(item.path.absolute()), item)
    if problems := [item.problem for item in found.values() if item.problem is not None]:
        if len(problems) == len(found):
            raise ArtifactError(" ".join(problems))
    elif not found:
        raise ArtifactError("there is nothing to do: all that was found are results of LeanFace.")
    names = result_names([item.file for item in found.values()])
    return [
        Source(name, item.label, item.path, item.kind, item.problem)
        for name, item in zip(names, found.values(), strict=True)
    ]


def pictures(source: Source, every: int = 1, limit: int | None = None) -> Iterator[Picture]:
    """Yield the photo itself, or the frames one after another.

    What is wrong with a source is said by a last picture, named after the source, whose `load` raises it: a video that
    cannot be opened, one that ends before its time, a camera that is not there.

    Args:
        every: keep every Nth frame.
        limit: end after so many frames.
    """
    if source.problem is not None:
        yield _refusal(source, ArtifactError(source.problem))
        return
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
        total = video.expected(every, limit)
        for frame in video.frames(every, limit):
            name = f"{source.name}/{frame.index:06d}"
            yield Picture(source, name, frame.image, frame.seconds, frame.pixels, total)
    if video.loss is not None:
        yield _refusal(source, ArtifactError(video.loss))


class _Input(NamedTuple):
    """What one result is made of; `file` is a relative path that the result's name comes from."""

    file: str
    label: str
    path: Path | None
    kind: Kind | Literal["webcam"]
    problem: str | None = None


def _files(text: str) -> list[_Input]:
    """Return the photos and videos of one input."""
    path = Path(text)
    if path.is_dir():
        return _picked(text, path, None)
    if text in PACKAGED_PHOTOS and not path.exists():
        path = photo_path(text)
    # A file that is not there is reported with the others that cannot be read.
    if path.exists() or not glob.has_magic(text):
        return [_input(path.parent, path)]
    magic = next(index for index, part in enumerate(path.parts) if glob.has_magic(part))
    return _picked(text, Path(*path.parts[:magic]), path.parts[magic:])


def _picked(text: str, root: Path, pattern: Sequence[str] | None) -> list[_Input]:
    """Return the photos and videos in a folder and below it, or those that fit a pattern there."""
    depth = None if pattern is None or "**" in pattern else len(pattern)
    try:
        files, own = walk(root, depth)
    except OSError as error:
        return [_nothing(text, f"{root} cannot be read: {error.strerror}.")]
    if pattern is not None:
        files = [file for file in files if matches(file.relative_to(root), pattern)]
    if picked := pick(files, text):
        return [_input(root, file) for file in picked]
    if own:
        logger.info("passed over %s: it holds results of LeanFace", text)
        return []
    if pattern is None:
        return [_nothing(text, f"{root} holds no photos or videos that can be read; folders within it count too.")]
    return [_nothing(text, f"no photo or video matches {text!r}.")]


def _input(root: Path, path: Path) -> _Input:
    return _Input(path.relative_to(root).as_posix(), str(path), path, _kind(path))


def _nothing(text: str, problem: str) -> _Input:
    return _Input(Path(text).name or "folder", text, None, "photo", problem)


def _kind(path: Path) -> Kind:
    """Tell the kind of a file that was named, or found by its name."""
    return kind_of(path) or ("video" if is_video(first_bytes(path)) else "photo")


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
