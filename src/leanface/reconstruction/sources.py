"""What to reconstruct: photos by file, folder or pattern, videos, webcams, standard input."""

import glob
import io
import re
import sys
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import numpy as np
from jaxtyping import UInt8

from leanface.errors import ArtifactError, BackendError
from leanface.photos.load import PACKAGED_PHOTOS, load_photo, photo_path
from leanface.synthesis.folder import SUFFIXES

VIDEO_SUFFIXES = {".avi", ".m4v", ".mkv", ".mov", ".mp4", ".mpeg", ".mpg", ".webm"}
STDIN = "-"
WEBCAM = re.compile(r"webcam(?::(\d+))?")
WEBCAM_FORMATS = {"linux": ("v4l2", "/dev/video{}"), "darwin": ("avfoundation", "{}"), "win32": ("dshow", "video={}")}
"""FFmpeg's device format and file by platform; {} is the camera's number."""

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
    kind: Literal["photo", "video", "webcam"] = "photo"


@dataclass(frozen=True)
class Picture:
    """A photo, or one frame of a video; `load` reads its pixels, and raises ArtifactError if it cannot."""

    source: Source
    name: str
    load: Callable[[], Image8]
    seconds: float | None = None
    """When a frame is shown; None for a photo."""


def find_sources(inputs: Sequence[str]) -> list[Source]:
    """Files as given, folders searched through, patterns expanded (`**` too), in a stable order, each file once.

    The name of a packaged photo stands for it, where there is no such file.

    Raises:
        ArtifactError: an input is no file, or a folder or pattern has no photos and videos.
    """
    found: dict[str, tuple[str, Path | None, Literal["photo", "video", "webcam"]]] = {}
    for text in inputs:
        if text == STDIN:
            found[text] = "stdin", None, "photo"
        elif camera := WEBCAM.fullmatch(text):
            found[text] = f"webcam_{camera[1] or 0}", None, "webcam"
        else:
            for root, path in _files(text):
                kind = "video" if path.suffix.lower() in VIDEO_SUFFIXES else "photo"
                found.setdefault(str(path), (path.relative_to(root).as_posix(), path, kind))
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
    """The photo itself, or frames one after the other.

    Args:
        every: take each so manieth frame.
        limit: end after so many frames.

    Raises:
        ArtifactError: a video cannot be read.
        BackendError: PyAV is missing, or there is no such camera.
    """
    if source.kind == "photo":
        yield Picture(source, source.name, lambda: _photo(source))
        return
    taken = 0
    for index, (seconds, frame) in enumerate(_frames(source)):
        if index % every:
            continue
        image = frame.to_ndarray(format="rgb24")
        yield Picture(source, f"{source.name}/{index:06d}", lambda image=image: image, seconds)
        taken += 1
        if taken == limit:
            return


def _files(text: str) -> list[tuple[Path, Path]]:
    """(folder that names are relative to, file) of one input."""
    path = Path(text)
    if path.is_dir():
        files = [(path, file) for file in sorted(path.rglob("*")) if _wanted(file)]
        if not files:
            raise ArtifactError(
                f"{path} holds no photos or videos ({', '.join(sorted(SUFFIXES | VIDEO_SUFFIXES))}; folders within it "
                "count too)."
            )
        return files
    if text in PACKAGED_PHOTOS and not path.exists():
        file = photo_path(text)
        return [(file.parent, file)]
    # A file that is not there is reported with the others that cannot be read.
    if path.exists() or not glob.has_magic(text):
        return [(path.parent, path)]
    magic = next(index for index, part in enumerate(path.parts) if glob.has_magic(part))
    root = Path(*path.parts[:magic])
    files = [match for match in sorted(root.glob("/".join(path.parts[magic:]))) if _wanted(match)]
    if not files:
        raise ArtifactError(f"no photo or video matches {text!r}.")
    return [(root, file) for file in files]


def _wanted(path: Path) -> bool:
    return path.suffix.lower() in SUFFIXES | VIDEO_SUFFIXES and path.is_file() and not path.name.startswith(".")


def _stem(name: str) -> str:
    return str(Path(name).with_suffix("")) if Path(name).suffix else name


def _photo(source: Source) -> Image8:
    if source.path is not None:
        return load_photo(source.path)
    content = sys.stdin.buffer.read()
    if not content:
        raise ArtifactError("standard input was empty; pipe a photo into it.")
    return load_photo(io.BytesIO(content))


def _frames(source: Source) -> Iterator[tuple[float, Any]]:
    """Time in seconds and PyAV frame of each."""
    try:
        import av
    except ImportError as error:
        raise BackendError(f"videos and webcams need PyAV ({error}): `pip install 'leanface[video]'`.") from None
    try:
        if source.path is not None:
            container: Any = av.open(str(source.path))
        else:
            camera = WEBCAM.fullmatch(source.label)
            number = (camera and camera[1]) or "0"
            device, file = WEBCAM_FORMATS.get(sys.platform, WEBCAM_FORMATS["linux"])
            container = av.open(file.format(number), format=device)
    except (OSError, ValueError) as error:  # PyAV's errors are kinds of these
        what = f"{source.label} as a video" if source.path is not None else f"the camera of {source.label!r}"
        raise ArtifactError(f"cannot open {what}: {error}") from None
    with container:
        if not container.streams.video:
            raise ArtifactError(f"{source.label} has no pictures in it.")
        stream = container.streams.video[0]
        stream.thread_type = "AUTO"
        rate = float(stream.average_rate or 25)
        index = -1
        try:
            for index, frame in enumerate(container.decode(stream)):
                yield (index / rate if frame.time is None else float(frame.time)), frame
        except (OSError, ValueError) as error:
            raise ArtifactError(f"{source.label} is damaged after frame {index}: {error}") from None
