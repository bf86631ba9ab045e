"""Many pictures and videos: reading, the network and writing at the same time, in flat memory, each failure on its own.

`leanface.reconstruction.readings` finds and reads faces; other threads texture and write them here. Whatever goes wrong
with one picture becomes that picture's outcome; all others are done. A video is one picture, unless a result is wanted
for each of its frames.
"""

import functools
import itertools
import os
from collections.abc import Iterable, Iterator
from contextlib import closing
from dataclasses import replace
from pathlib import Path

from leanface.device import usable_cores
from leanface.reconstruction.animation import Watch, animate, unwatched
from leanface.reconstruction.lean_face import LeanFace
from leanface.reconstruction.outputs import Settings, VideoSettings, made_with, write
from leanface.reconstruction.people import People
from leanface.reconstruction.readings import (
    PIXELS_MAX,
    PIXELS_PER_WORKER,
    Job,
    Outcome,
    Reading,
    readings,
    threaded,
    told,
)
from leanface.reconstruction.sources import Source


def reconstruct_all(
    lean_face: LeanFace,
    sources: Iterable[Source],
    folder: Path,
    settings: Settings,
    *,
    video: VideoSettings | None = None,
    redo: bool = False,
    watch: Watch = unwatched,
    workers: int | None = None,
) -> Iterator[Outcome]:
    """Reconstruct everything into folders named after the pictures and videos, in order; one outcome for each.

    Ctrl-C ends a video early: what was read of it is written, and comes as an outcome before the KeyboardInterrupt
    goes on.

    Args:
        video: what to take of videos, and whether each of their frames counts as a picture.
        redo: also what an earlier run has finished with the same settings. Single frames are always done again: they
            are smoothed over time.
        watch: is told how far an animation is.
        workers: how many threads each step has; as many as there are cores if not given.
    """
    job = Job(lean_face, folder, settings, video or VideoSettings(), made_with(lean_face), redo)
    workers = workers or usable_cores()
    pixels = min(workers * PIXELS_PER_WORKER, PIXELS_MAX)
    for film, group in _grouped(sources):
        if film is not None and film.kind == "webcam":
            film = replace(film, name=_new_name(folder, film.name))
        read = readings(job, group if film is None else [film], workers, pixels)
        if film is not None and job.video.frames_as == "animation":
            yield from animate(job, film, read, watch)
        else:
            people = None if film is None else People(lean_face.surface, frames_min=1)
            read = read if people is None else people.numbered(read)
            write_one = functools.partial(_write, job)
            written = threaded(write_one, read, workers, 2 * workers, lambda reading: reading.found.pixels / pixels)
            try:
                with closing(written):
                    yield from written
            except KeyboardInterrupt:
                if people is not None:  # frames of a newcomer wait until it is known who that is
                    yield from map(write_one, people.rest())
                raise


def _grouped(sources: Iterable[Source]) -> Iterator[tuple[Source | None, list[Source]]]:
    """Keep photos in a row together; yield each video, and last each camera, alone: as the key and as the source."""
    in_order = sorted(sources, key=lambda source: source.kind == "webcam")
    for video, group in itertools.groupby(in_order, lambda source: None if source.kind == "photo" else source):
        yield video, list(group)


def _new_name(folder: Path, name: str) -> str:
    """Choose a free name: what a camera showed cannot be had again, so it makes no room for what it shows now."""
    number, new = 1, name
    while os.path.lexists(folder / new):
        number += 1
        new = f"{name}_{number}"
    return new


def _write(job: Job, reading: Reading) -> Outcome:
    found, picture = reading.found, reading.found.picture
    if found.done or found.photo is None or found.error is not None:
        return Outcome(picture.name, 0, found.error, found.done)
    faces, settings = reading.faces, job.settings
    try:
        if settings.texture_px:
            textured = job.lean_face.textured
            faces = [textured(face, found.photo, settings.texture_px, delight=settings.delight) for face in faces]
        write(job.folder / picture.name, picture, found.photo, faces, settings, job.made, found.file)
    except Exception as error:
        return Outcome(picture.name, 0, told(picture.name, error))
    return Outcome(picture.name, len(faces))
