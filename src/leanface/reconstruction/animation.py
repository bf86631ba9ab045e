"""What becomes of a video: an animated head per person, tables of its coefficients, and the video with the meshes.

Frames come one by one, and memory grows by a kilobyte for each. What ends a video early, Ctrl-C or a disk that is full
for the overlay, keeps all that was done until then.
"""

import itertools
import json
import logging
from collections.abc import Callable, Generator, Iterator, Sequence
from contextlib import closing
from dataclasses import asdict
from pathlib import Path
from typing import Any

import numpy as np
from jaxtyping import UInt8

from leanface.errors import ArtifactError, reason
from leanface.face.arkit import Blendshapes
from leanface.files import require_free, staged
from leanface.photos.video_writer import VideoWriter
from leanface.reconstruction.outputs import RECORD, VIDEO, Photo, is_complete, is_done, remove_frames
from leanface.reconstruction.people import People
from leanface.reconstruction.person import Person
from leanface.reconstruction.pictures import overlay
from leanface.reconstruction.readings import Job, Outcome, Reading, threaded, told
from leanface.reconstruction.result import Reconstruction
from leanface.reconstruction.sources import Source

OVERLAY = "overlay.mp4"
AHEAD = 2
"""How many frames are held for their texture and overlay, which may take longer than reading."""

AWAY_BYTES = 2**28
"""Memory for the textures of those who left and may come back; beyond that, who left first is written."""

Watch = Callable[[int, int | None], None]
"""Is told after each frame how many are done, and how many there will be if that is known."""

logger = logging.getLogger(__name__)


def unwatched(done: int, total: int | None) -> None:
    """Tell nobody."""


def animate(job: Job, film: Source, readings: Generator[Reading], watch: Watch) -> Iterator[Outcome]:
    """Make one result of a video's frames, and yield its outcome.

    Raises:
        KeyboardInterrupt: after the outcome of what was read until then.
    """
    place = job.folder / film.name
    interrupt: KeyboardInterrupt | None = None
    try:
        file = Photo(film.path) if film.path is not None and film.path.is_file() else None
        if file is not None:
            if not job.redo and is_done(place, file, job.settings, job.made, job.video):
                yield Outcome(film.name, 0, skipped=True)
                return
            _ = file.sha256  # before the frames are read: if it changes in between, it is done again
        require_free(place, VIDEO, job.folder)
        first = next(readings, None)
        if first is None or first.found.picture.seconds is None:  # it cannot be opened, or has no frame
            yield Outcome(film.name, 0, None if first is None else first.found.error)
            return
        with closing(readings), staged(place, VIDEO) as new:
            animation = Animation(job, film, new)
            people = People(job.lean_face.surface, max(1, AWAY_BYTES // max(1, 16 * job.settings.texture_px**2)))
            numbered = people.numbered(itertools.chain([first], readings))
            try:
                with closing(threaded(animation.add, numbered, 1, AHEAD)) as frames:
                    for done, _ in enumerate(frames, 1):
                        watch(done, first.found.picture.total)
            except KeyboardInterrupt as error:
                if is_complete(place):
                    logger.info("%s: stopped; the result of an earlier run stays", film.name)
                    raise
                interrupt = error
                for reading in people.rest():
                    animation.add(reading)
            animation.finish(file, complete=interrupt is None)
        remove_frames(place)
        outcome = Outcome(film.name, animation.people, animation.loss)
        logger.info("%s: %s", film.name, animation.summary)
    except Exception as error:
        outcome = Outcome(film.name, 0, told(film.name, error))
    yield outcome
    if interrupt is not None:
        raise interrupt


class Animation:
    """One video's result in the making. Call `add` with each frame in order, then `finish`."""

    def __init__(self, job: Job, film: Source, folder: Path) -> None:
        """Begin without a frame.

        Args:
            folder: where files go; a new, empty one.
        """
        surface = job.lean_face.surface
        self._job = job
        self._film = film
        self._folder = folder
        self._blendshapes = Blendshapes.load(surface.head, surface.sha256)
        self._people: dict[int, Person] = {}
        """By number, everyone who is not written yet."""
        self._written: list[dict[str, Any]] = []
        self._frames = 0
        self._failures: list[str] = []
        self._overlay = VideoWriter(folder / OVERLAY) if job.settings.pictures else None
        self.loss: str | None = None
        """What could not be read of the video."""

    @property
    def people(self) -> int:
        """How many there are so far who are no mistake."""
        return len(self._people) + len(self._written)

    @property
    def summary(self) -> str:
        """Say who was found where."""
        people = f"{self.people} {'person' if self.people == 1 else 'people'}"
        return f"{people} in {self._frames:,} frame{'' if self._frames == 1 else 's'}"

    def add(self, reading: Reading) -> None:
        """Take in the next frame, or at the end what went wrong with the video.

        Raises:
            OSError: the files of someone who will not be known again cannot be written.
        """
        found = reading.found
        seconds = found.picture.seconds
        if seconds is None:
            self.loss = found.error
            return
        self._frames += 1
        for number in reading.forgotten:
            if number in self._people:
                self._write(number)
        if found.photo is None:
            self._failures.append(found.error or "")
            return
        try:
            for face in reading.faces:
                self._add_face(face, found.photo, int(Path(found.picture.name).name), seconds)
        except Exception as error:
            self._failures.append(told(found.picture.name, error))
        self._draw(found.photo, reading.faces, seconds)

    def finish(self, file: Photo | None, *, complete: bool) -> None:
        """Write who is still there, and the record.

        Args:
            file: the video's.
            complete: all of it was read.

        Raises:
            ArtifactError: there is nobody in it.
            OSError: a file cannot be written.
        """
        for number in list(self._people):
            self._write(number)
        self._end_overlay()
        if self._failures:
            failed = f"{len(self._failures):,} of its {self._frames:,} frames could not be read ({self._failures[0]})"
            self.loss = failed if self.loss is None else f"{self.loss} {failed}"
        if not self.people:
            raise ArtifactError(
                self.loss
                or f"no face that can be read in more than one of its {self._frames:,} frames; use a video in which "
                "both eyes and the mouth show. Smaller faces are looked for with `--min-face`."
            )
        job = self._job
        record = {
            "source": Path(self._film.label).name,
            "photo_sha256": None if file is None else file.sha256,
            "photo_status": None if file is None else file.status,
            "settings": asdict(job.settings),
            "video": asdict(job.video),
            "made_with": job.made,
            "complete": complete and self.loss is None,
            "frames": self._frames,
            "people": sorted(self._written, key=lambda person: person["first_s"]),
        }
        (self._folder / RECORD).write_text(json.dumps(record, indent=1) + "\n")

    def _add_face(self, face: Reconstruction, photo: UInt8[np.ndarray, "H W 3"], frame: int, seconds: float) -> None:
        number = None if face.detection is None else face.detection.number
        if number is None:
            return
        person = self._people[number] if number in self._people else Person(self._job.lean_face, self._job.settings)
        person.add(face, photo, frame, seconds)
        self._people[number] = person

    def _write(self, number: int) -> None:
        person, name = self._people.pop(number), f"person_{number}"
        first, last = person.seconds
        person.write(self._folder, name, self._blendshapes)
        self._written.append({"name": name, "frames": len(person), "first_s": first, "last_s": last})

    def _draw(self, photo: UInt8[np.ndarray, "H W 3"], faces: Sequence[Reconstruction], seconds: float) -> None:
        if self._overlay is not None:
            self._or_drop(lambda: self._overlay and self._overlay.add(overlay(photo, list(faces)), seconds))

    def _end_overlay(self) -> None:
        if self._overlay is not None:
            self._or_drop(self._overlay.close)

    def _or_drop(self, step: Callable[[], object]) -> None:
        """Go on without the overlay where a step of it fails, as on a full disk: heads are worth more."""
        try:
            step()
        except Exception as error:
            if self._overlay is not None:
                self._overlay.discard()
            self._overlay = None
            words = error.strerror if isinstance(error, OSError) and error.strerror else reason(error)
            logger.warning("%s: left out %s: %s", self._film.name, OVERLAY, words)
