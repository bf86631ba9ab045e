"""Many pictures: reading, the network and writing at the same time, in flat memory, each failure on its own.

Pictures are decoded and searched for faces by some threads, read by the network in batches in the caller's thread, and
decoded, textured and written by other threads. Each step takes only so many pictures, and pixels, ahead of the next, so
that the slowest sets the pace and memory does not grow.

Whatever goes wrong with one picture, expected or not, becomes that picture's outcome; all others are done.
"""

import itertools
import logging
import os
from collections import deque
from collections.abc import Callable, Iterable, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import replace
from pathlib import Path
from typing import Any, NamedTuple, TypeVar

import numpy as np
from jaxtyping import Float, UInt8

from leanface.device import usable_cores
from leanface.errors import LeanFaceError, reason
from leanface.files import require_free
from leanface.photos.crops import FaceCrop
from leanface.photos.tracking import FaceTracker
from leanface.reconstruction.lean_face import LeanFace
from leanface.reconstruction.outputs import Photo, Settings, begin_video, is_done, kind_of, made_with, write
from leanface.reconstruction.smoothing import Smoother
from leanface.reconstruction.sources import Picture, Source, pictures

BATCH_PICTURES = 8
"""How many pictures' faces go through the network at once; a camera's one by one."""

PIXELS_PER_WORKER, PIXELS_MAX = 2**25, 2**28
"""How many pixels of photos a step holds at once per thread, and in all; a larger photo is alone in it."""

logger = logging.getLogger(__name__)

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
    file: Photo | None = None

    @property
    def pixels(self) -> int:
        """How many are held, or will be as soon as the picture is loaded."""
        if self.done or self.error is not None:
            return 0
        return self.picture.pixels if self.photo is None else self.photo.shape[0] * self.photo.shape[1]


class _People(NamedTuple):
    """Who is in a video."""

    tracker: FaceTracker
    smoother: Smoother


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
        every: keep every Nth frame of a video, at most `limit` of them.
        redo: also what an earlier run has finished with the same settings. Frames are always done again: they are
            smoothed over time.
    """
    made = made_with(lean_face)
    workers = usable_cores()
    pixels = min(workers * PIXELS_PER_WORKER, PIXELS_MAX)
    for video, group in _grouped(sources):
        shots = (shot for source in group for shot in _pictures(source, folder, every=every, limit=limit))
        batch = 1 if video and video.kind == "webcam" else BATCH_PICTURES
        people = _People(lean_face.tracker(), Smoother()) if video else None
        found = threaded(
            lambda shot, people=people: _find(lean_face, shot, folder, settings, made, people, redo=redo),
            shots,
            1 if people else workers,  # faces are followed from one frame to the next
            1 if batch == 1 else workers + batch,
            lambda shot: shot.pixels / pixels,
        )
        answers = (read for shots in _batched(found, batch, pixels) for read in _read(lean_face, shots, people))
        yield from threaded(
            lambda read: _write(lean_face, read, folder, settings, made),
            answers,
            workers,
            2 * workers,
            lambda read: read.found.pixels / pixels,
        )


def threaded(
    work: Callable[[T], R],
    items: Iterable[T],
    workers: int,
    room: int,
    share: Callable[[T], float] = lambda _: 0.0,
) -> Iterator[R]:
    """Map by threads, in order, a bounded number of items ahead of what has been returned.

    Args:
        room: how many items are taken ahead at most.
        share: of the memory for all items ahead that one takes; one that takes more than there is waits for all others.

    Raises:
        Exception: of the first item that fails; those that have not begun are dropped.
    """
    with ThreadPoolExecutor(workers) as threads:
        pending: deque[tuple[Future[R], float]] = deque()
        try:
            for item in items:
                own = share(item)
                while pending and sum(other for _, other in pending) + own > 1:
                    yield pending.popleft()[0].result()
                pending.append((threads.submit(work, item), own))
                del item
                if len(pending) >= room:
                    yield pending.popleft()[0].result()
            while pending:
                yield pending.popleft()[0].result()
        finally:
            for future, _ in pending:
                future.cancel()


def _grouped(sources: Iterable[Source]) -> Iterator[tuple[Source | None, list[Source]]]:
    """Keep photos in a row together; yield each video, and last each camera, alone: as the key and as the source."""
    in_order = sorted(sources, key=lambda source: source.kind == "webcam")
    for video, group in itertools.groupby(in_order, lambda source: None if source.kind == "photo" else source):
        yield video, list(group)


def _pictures(source: Source, folder: Path, *, every: int, limit: int | None) -> Iterator[_Found]:
    begun = False
    if source.kind == "webcam":
        source = replace(source, name=_new_name(folder, source.name))
    try:
        for picture in pictures(source, every, limit):
            if picture.seconds is not None and not begun:
                begin_video(folder, source.name)
                begun = True
            yield _Found(picture)
    except Exception as error:
        yield _Found(Picture(source, source.name, _nothing), error=_told(source.name, error))


def _new_name(folder: Path, name: str) -> str:
    """Choose a free name: what a camera showed cannot be had again, so it makes no room for what it shows now."""
    number, new = 1, name
    while os.path.lexists(folder / new):
        number += 1
        new = f"{name}_{number}"
    return new


def _nothing() -> UInt8[np.ndarray, "H W 3"]:
    return np.empty((0, 0, 3), np.uint8)


def _told(name: str, error: Exception) -> str:
    """Tell why a picture is left out; how an unexpected error came about goes to the log."""
    if not isinstance(error, LeanFaceError):
        logger.debug("%s failed unexpectedly", name, exc_info=error)
    return reason(error)


def _find(
    lean_face: LeanFace,
    shot: _Found,
    folder: Path,
    settings: Settings,
    made: dict[str, Any],
    people: _People | None,
    *,
    redo: bool,
) -> _Found:
    if shot.error is not None:
        return shot
    picture = shot.picture
    try:
        if (file := _file(picture)) is not None:
            if not redo and is_done(folder / picture.name, file, settings, made):
                return shot._replace(done=True)
            _ = file.sha256  # before the pixels are read: if it changes in between, it is done again
        if file is not None or picture.seconds is not None:
            require_free(folder / picture.name, kind_of(picture), folder)  # before the work, not after it
        photo = picture.load()
        if people is None or picture.seconds is None:
            crops = lean_face.crop(photo, settings.faces)
        else:
            crops = lean_face.crop_tracked(photo, picture.seconds, people.tracker, settings.faces)
        return shot._replace(file=file, photo=photo, crops=crops)
    except Exception as error:
        return shot._replace(error=_told(picture.name, error))


def _file(picture: Picture) -> Photo | None:
    """Return what a photo is read from; None for frames, standard input, and what is not there."""
    source = picture.source
    if source.path is None or source.kind != "photo" or not source.path.is_file():
        return None
    return Photo(source.path)


def _batched(found: Iterable[_Found], batch: int, pixels: int) -> Iterator[list[_Found]]:
    """Group up to `batch` pictures that have at most about `pixels` pixels together."""
    group: list[_Found] = []
    for shot in found:
        group.append(shot)
        if len(group) == batch or sum(member.pixels for member in group) > pixels:
            yield group
            group = []
    if group:
        yield group


def _read(lean_face: LeanFace, shots: Sequence[_Found], people: _People | None) -> Iterator[_Read]:
    """Run the network on all faces of some pictures at once, and where that fails, picture by picture."""
    crops = [crop.crop for shot in shots for crop in shot.crops]
    try:
        coefficients = lean_face.read(np.stack(crops)) if crops else np.empty((0, 257), np.float32)
    except Exception as error:
        if len(shots) > 1:
            for shot in shots:
                yield from _read(lean_face, [shot], people)
            return
        yield _failed(shots[0], error)
        return
    start = 0
    for shot in shots:
        own = coefficients[start : start + len(shot.crops)]
        start += len(shot.crops)
        framed = shot.crops
        if people is not None and shot.picture.seconds is not None:
            try:
                framed, own = people.smoother(framed, own, shot.picture.seconds)
            except Exception as error:
                yield _failed(shot, error)
                continue
        yield _Read(shot, framed, own)


def _failed(shot: _Found, error: Exception) -> _Read:
    found = shot._replace(photo=None, error=_told(shot.picture.name, error))
    return _Read(found, (), np.empty((0, 257), np.float32))


def _write(lean_face: LeanFace, read: _Read, folder: Path, settings: Settings, made: dict[str, Any]) -> Outcome:
    found, picture = read.found, read.found.picture
    if found.done or found.photo is None or found.error is not None:
        return Outcome(picture.name, 0, found.error, found.done)
    try:
        faces = lean_face.sound(lean_face.decode(read.coefficients, read.crops))
        if settings.texture_px:
            textured = lean_face.textured
            faces = [textured(face, found.photo, settings.texture_px, delight=settings.delight) for face in faces]
        write(folder / picture.name, picture, found.photo, faces, settings, made, found.file)
    except Exception as error:
        return Outcome(picture.name, 0, _told(picture.name, error))
    return Outcome(picture.name, len(faces))
