"""Numbers the people of a video: who comes back, also after a cut, has the same number as before.

The tracker numbers what it sees without a break. The shape of the head, without its expression, tells whose face that
is. Its estimate gets better with each frame, so it takes some frames until a newcomer has a number.
"""

from collections import deque
from collections.abc import Generator, Iterable, Sequence
from dataclasses import dataclass, replace

import numpy as np
from jaxtyping import Float32

from leanface.face.coefficients import IDENTITY
from leanface.photos.tracking import PATIENCE_SECONDS
from leanface.reconstruction.readings import PIXELS_PER_WORKER, Reading
from leanface.reconstruction.result import Reconstruction
from leanface.reconstruction.surface import Surface

SAME_PERSON_MM = 1.9
"""Distance of two shapes, root mean square over all vertices, under which they are one person's. Of 40 rendered people
in other light and poses, averaged over four frames, one was further apart, and no two people were as close:
docs/results/tracking/identities.json."""

SURE_FRAMES = 10
"""After so many frames a newcomer's shape is known well enough to be compared; who leaves before is compared then."""

AWAY_MAX = 1000
"""How many of those who left are remembered; beyond that, who left first would be new."""

Shape = Float32[np.ndarray, "80"]
"""Identity coefficients, in mm that they move vertices by."""


@dataclass(eq=False)
class _Person:
    number: int
    shape_mm: Shape
    last_s: float


@dataclass(eq=False)
class _Track:
    """A face from when the tracker finds it until it gives it up."""

    first_s: float
    last_s: float
    shape_mm: Shape
    """The average up to there, see `leanface.reconstruction.smoothing`."""
    frames: int = 0
    person: _Person | None = None
    is_over: bool = False


class People:
    """Everyone in one video or before one camera. One thread uses it, and gives it the frames in order."""

    def __init__(self, surface: Surface, away_max: int = AWAY_MAX, frames_min: int = 2) -> None:
        """Begin without a frame.

        Args:
            away_max: see AWAY_MAX.
            frames_min: who is seen in fewer may be a mistake, and gets no number, unless there is only one frame.
        """
        self._scales_mm = surface.identity_scales_mm
        self._away_max, self._frames_min = away_max, frames_min
        self._tracks: dict[int | None, _Track] = {}
        """By the tracker's numbers, what it may see again."""
        self._people: list[_Person] = []
        """Who may be known again."""
        self._forgotten: list[int] = []
        self._held: deque[tuple[Reading, list[_Track]]] = deque()
        self._count = self._frames = 0
        self._seconds = 0.0

    def see(self, faces: Sequence[Reconstruction], seconds: float) -> list[Reconstruction]:
        """Take in the next frame's faces, and number those that are known by now, see `named`.

        Args:
            faces: with the tracker's numbers and steadied over time.
            seconds: when the frame is shown.
        """
        self._see(faces, seconds)
        return self.named(faces)

    def named(self, faces: Sequence[Reconstruction]) -> list[Reconstruction]:
        """Replace the tracker's numbers in the frame that was seen last by those of people, None if not known yet."""
        return [_numbered(face, self._tracks.get(_track_number(face))) for face in faces]

    def numbered(self, readings: Iterable[Reading]) -> Generator[Reading]:
        """Number everyone in all frames from the first on, also those in which they were not known yet.

        A frame waits until its faces are known, at most as long as those behind it fit into memory.
        """
        for reading in readings:
            seconds = reading.found.picture.seconds
            tracks = [] if seconds is None else self._see(reading.faces, seconds)
            self._held.append((reading._replace(forgotten=tuple(self._forgotten)), tracks))
            self._forgotten.clear()
            while self._held and (self._is_known() or self._held_pixels() > PIXELS_PER_WORKER):
                yield self._release()
        yield from self.rest()

    def rest(self) -> Generator[Reading]:
        """End the video here: number the frames that still wait."""
        if self._frames == 1:  # then nobody can be seen twice
            self._frames_min = 1
        self._give_up(np.inf)
        while self._held:
            yield self._release()

    def _see(self, faces: Sequence[Reconstruction], seconds: float) -> list[_Track]:
        before = min(self._seconds, seconds - PATIENCE_SECONDS)
        self._give_up(before)
        self._forget(before)
        self._seconds = seconds
        self._frames += 1
        tracks = [self._track(face, seconds) for face in faces]
        for track in tracks:
            if track.person is None and track.frames >= SURE_FRAMES:
                self._identify(track)
        return tracks

    def _track(self, face: Reconstruction, seconds: float) -> _Track:
        """Add a face to its track."""
        shape_mm = face.coefficients[IDENTITY] * self._scales_mm
        track = self._tracks.setdefault(_track_number(face), _Track(seconds, seconds, shape_mm))
        track.frames += 1
        track.last_s, track.shape_mm = seconds, shape_mm
        if track.person is not None:
            track.person.last_s, track.person.shape_mm = seconds, shape_mm
        return track

    def _give_up(self, before: float) -> None:
        """End the tracks that were not seen since `before`, as the tracker does."""
        for number, track in list(self._tracks.items()):
            if track.last_s < before:
                del self._tracks[number]
                track.is_over = True
                self._identify(track)

    def _forget(self, before: float) -> None:
        away = sorted((person for person in self._people if person.last_s < before), key=lambda person: person.last_s)
        for person in away[: max(0, len(away) - self._away_max)]:
            self._people.remove(person)
            self._forgotten.append(person.number)

    def _identify(self, track: _Track) -> None:
        """Find out whose face this is: of somebody who was gone when it appeared, or of somebody new."""
        if track.person is not None or track.frames < self._frames_min:
            return
        gone = [person for person in self._people if person.last_s < track.first_s]
        distances_mm = [float(np.linalg.norm(person.shape_mm - track.shape_mm)) for person in gone]
        nearest = int(np.argmin(distances_mm)) if gone else 0
        if gone and distances_mm[nearest] <= SAME_PERSON_MM:
            person = gone[nearest]
            # Who was lost behind somebody else may have a track that is not given up yet.
            self._tracks = {number: other for number, other in self._tracks.items() if other.person is not person}
        else:
            self._count += 1
            person = _Person(self._count, track.shape_mm, track.last_s)
            self._people.append(person)
        person.last_s, person.shape_mm = track.last_s, track.shape_mm
        track.person = person

    def _is_known(self) -> bool:
        """Tell whether all faces of the frame that waits longest have their final number."""
        return all(track.person is not None or track.is_over for track in self._held[0][1])

    def _held_pixels(self) -> int:
        return sum(reading.found.pixels for reading, _ in self._held)

    def _release(self) -> Reading:
        reading, tracks = self._held.popleft()
        for track in tracks:
            self._identify(track)
        return reading._replace(faces=[_numbered(*each) for each in zip(reading.faces, tracks, strict=True)])


def _track_number(face: Reconstruction) -> int | None:
    return None if face.detection is None else face.detection.number


def _numbered(face: Reconstruction, track: _Track | None) -> Reconstruction:
    number = None if track is None or track.person is None else track.person.number
    return face if face.detection is None else replace(face, detection=replace(face.detection, number=number))
