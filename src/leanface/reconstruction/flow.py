"""Many pictures: reading, the network and writing at the same time, in flat memory, each failure on its own.

Pictures are decoded and searched for faces by some threads, read by the network in batches in the caller's thread, and
decoded, textured and written by other threads. Each step takes only so many pictures ahead of the next, so that the
slowest sets the pace and memory does not grow.
"""

from collections import deque
from collections.abc import Callable, Iterable, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from itertools import islice
from pathlib import Path
from typing import NamedTuple, TypeVar

import numpy as np
from jaxtyping import Float, UInt8

from leanface.device import usable_cores
from leanface.errors import LeanFaceError
from leanface.photos.crops import FaceCrop
from leanface.reconstruction.lean_face import LeanFace
from leanface.reconstruction.outputs import Settings, is_done, write
from leanface.reconstruction.smoothing import Smoother
from leanface.reconstruction.sources import Picture, Source, pictures

BATCH_PICTURES = 8
"""How many pictures' faces go through the network at once; a camera's one by one."""

T = TypeVar("T")
R = TypeVar("R")


class Outcome(NamedTuple):
    """What became of one picture, or of a source that could not be opened."""

    name: str
    faces: int
    error: str | None = None
    skipped: bool = False


class _Found(NamedTuple):
    """A picture with its faces, or why there are none."""

    picture: Picture
    photo: UInt8[np.ndarray, "H W 3"] | None = None
    crops: Sequence[FaceCrop] = ()
    error: str | None = None
    done: bool = False


class _Read(NamedTuple):
    found: _Found
    crops: Sequence[FaceCrop]
    coefficients: Float[np.ndarray, "N 257"]


def reconstruct_all(
    lean_face: LeanFace,
    sources: Iterable[Source],
    folder: Path,
    settings: Settings,
    *,
    every: int = 1,
    limit: int | None = None,
    redo: bool = False,
) -> Iterator[Outcome]:
    """Reconstruct everything into folders named after the pictures, in order; one outcome for each.

    Args:
        every: take each so manieth frame of a video; `limit` so many frames at most.
        redo: also what an earlier run has finished with the same settings. Frames are always done again: they are
            smoothed over time.
    """
    for live, group in _grouped(sources):
        shots = (
            shot
            for source in group
            for shot in _pictures(source, folder, settings, redo=redo, every=every, limit=limit)
        )
        batch = 1 if live else BATCH_PICTURES
        workers = usable_cores()
        room = 1 if live else workers + batch
        found = threaded(lambda shot: _find(lean_face, shot, settings), shots, workers, room)
        answers = _read(lean_face, found, batch)
        yield from threaded(lambda read: _write(lean_face, read, folder, settings), answers, workers, 2 * workers)


def threaded(work: Callable[[T], R], items: Iterable[T], workers: int, room: int) -> Iterator[R]:
    """`map` by threads, in order; at most `room` items are taken ahead of what has been returned.

    Raises:
        Exception: of the first item that fails; those that have not begun are dropped.
    """
    with ThreadPoolExecutor(workers) as threads:
        pending: deque[Future[R]] = deque()
        try:
            for item in items:
                pending.append(threads.submit(work, item))
                if len(pending) >= room:
                    yield pending.popleft().result()
            while pending:
                yield pending.popleft().result()
        finally:
            for future in pending:
                future.cancel()


def _grouped(sources: Iterable[Source]) -> Iterator[tuple[bool, list[Source]]]:
    """Cameras, which are live, apart from files."""
    files: list[Source] = []
    cameras: list[Source] = []
    for source in sources:
        (cameras if source.kind == "webcam" else files).append(source)
    if files:
        yield False, files
    for camera in cameras:
        yield True, [camera]


def _pictures(
    source: Source, folder: Path, settings: Settings, *, redo: bool, every: int, limit: int | None
) -> Iterator[_Found]:
    if source.kind == "photo" and not redo and is_done(folder / source.name, source, settings):
        (picture,) = pictures(source)
        yield _Found(picture, done=True)
        return
    try:
        for picture in pictures(source, every, limit):
            yield _Found(picture)
    except LeanFaceError as error:
        yield _Found(Picture(source, source.name, _nothing), error=str(error))


def _nothing() -> UInt8[np.ndarray, "H W 3"]:
    return np.empty((0, 0, 3), np.uint8)


def _find(lean_face: LeanFace, shot: _Found, settings: Settings) -> _Found:
    if shot.done or shot.error is not None:
        return shot
    try:
        photo = shot.picture.load()
        return shot._replace(photo=photo, crops=lean_face.crop(photo, settings.faces))
    except LeanFaceError as error:
        return shot._replace(error=str(error))


def _read(lean_face: LeanFace, found: Iterator[_Found], batch: int) -> Iterator[_Read]:
    smoothers: dict[Source, Smoother] = {}
    while group := list(islice(found, batch)):
        crops = [crop.crop for shot in group for crop in shot.crops]
        coefficients = lean_face.read(np.stack(crops)) if crops else np.empty((0, 257), np.float32)
        start = 0
        for shot in group:
            own = coefficients[start : start + len(shot.crops)]
            start += len(shot.crops)
            framed = shot.crops
            if shot.picture.seconds is not None:
                smoother = smoothers.setdefault(shot.picture.source, Smoother())
                framed, own = smoother(framed, own, shot.picture.seconds)
            yield _Read(shot, framed, own)


def _write(lean_face: LeanFace, read: _Read, folder: Path, settings: Settings) -> Outcome:
    found, picture = read.found, read.found.picture
    if found.done or found.photo is None or found.error is not None:
        return Outcome(picture.name, 0, found.error, found.done)
    try:
        faces = lean_face.decode(read.coefficients, read.crops)
        if settings.texture_px:
            textured = lean_face.textured
            faces = [textured(face, found.photo, settings.texture_px, delight=settings.delight) for face in faces]
        write(folder / picture.name, picture, found.photo, faces, settings)
    except LeanFaceError as error:
        return Outcome(picture.name, 0, str(error))
    return Outcome(picture.name, len(faces))
