"""Follows faces from frame to frame of a video, so that the detector only looks where it must."""

from dataclasses import dataclass, replace

import numpy as np
from jaxtyping import Float, UInt8

from leanface.errors import NoFaceError
from leanface.photos.detector import FaceDetection, FaceDetector

LOOK_SECONDS = 1.0
"""How often the detector looks for new people while nobody is lost."""

PATIENCE_SECONDS = 0.5
"""How long a lost face keeps its number, and is looked for in every frame."""

SAME_FACE_OVERLAP = 0.3
"""Intersection over union from which two frames' boxes show the same face."""

ONE_FACE_OVERLAP = 0.6
"""Intersection over union from which two followed faces are one: the follower of a covered face jumps to the other."""

CUT_LEVELS, THUMBNAIL_PX = 40.0, 32
"""Mean change of a thumbnail's pixels, of 255 levels, from one frame to the next that only a cut makes."""


@dataclass
class _Track:
    number: int
    face: FaceDetection
    seconds: float
    """When the face was seen last."""


class FaceTracker:
    """Finds the faces in the frames of one video, called with each in order.

    The landmark network looks where it saw each face in the frame before, and says whether it still sees one: two
    milliseconds where the detector takes tens. The detector looks at the first frame, after a cut, while a face is
    lost, and every `LOOK_SECONDS` for new people. Each person keeps a number; after a cut all are new.

    Source: Kartynnik et al., "Real-time Facial Surface Geometry from Monocular Video on Mobile GPUs", 2019
    (arXiv:1907.06724), section 2.
    """

    def __init__(self, detector: FaceDetector) -> None:
        """Begin a video."""
        self._detector = detector
        self._tracks: list[_Track] = []
        self._people = 0
        self._looked = self._seconds = -np.inf
        self._thumbnail: Float[np.ndarray, "h w 3"] | None = None

    def __call__(self, frame: UInt8[np.ndarray, "H W 3"], seconds: float) -> list[FaceDetection]:
        """Return the faces of a frame with their numbers, the largest first.

        Args:
            frame: RGB.
            seconds: when it is shown; later than the frame before.

        Raises:
            NoFaceError: there is none.
            ValueError: the frame is not uint8 (H, W, 3).
        """
        if self._is_cut(frame):
            self._tracks.clear()
        # Frames may lie far apart: who was in the last one is not lost.
        since = min(self._seconds, seconds - PATIENCE_SECONDS)
        self._tracks = [track for track in self._tracks if track.seconds >= since]
        self._seconds = seconds
        steadiness: list[tuple[float, float]] = []
        for track in self._tracks:
            if (face := self._detector.follow(frame, track.face)) is not None:
                steadiness.append((track.seconds, overlap(face.box, track.face.box)))
                track.face, track.seconds = face, seconds
            else:
                steadiness.append((-np.inf, 0.0))
        self._drop_doubles(seconds, steadiness)
        lost = [track for track in self._tracks if track.seconds != seconds]
        if lost or not self._tracks or not 0 <= seconds - self._looked < LOOK_SECONDS:
            self._looked = seconds
            self._look(frame, seconds)
        seen = [replace(track.face, number=track.number) for track in self._tracks if track.seconds == seconds]
        return sorted(seen, key=lambda face: np.prod(face.box[2:] - face.box[:2]), reverse=True)

    def _is_cut(self, frame: UInt8[np.ndarray, "H W 3"]) -> bool:
        height, width = frame.shape[:2]
        rows, columns = (np.arange(THUMBNAIL_PX) * side // THUMBNAIL_PX for side in (height, width))
        before, self._thumbnail = self._thumbnail, frame[np.ix_(rows, columns)].astype(np.float32)
        return before is not None and float(np.abs(self._thumbnail - before).mean()) > CUT_LEVELS

    def _drop_doubles(self, seconds: float, steadiness: list[tuple[float, float]]) -> None:
        """Drop one of two followed faces that have become one.

        Args:
            steadiness: when each track's face was seen before this frame, and how much it overlaps itself there: the
                follower of a face that is covered was lost for a while, or has jumped.
        """
        order = sorted(range(len(self._tracks)), key=steadiness.__getitem__, reverse=True)
        seen = [track for index in order if (track := self._tracks[index]).seconds == seconds]
        for index, track in enumerate(seen):
            if any(overlap(track.face.box, better.face.box) > ONE_FACE_OVERLAP for better in seen[:index]):
                track.seconds = np.nextafter(seconds, -np.inf)

    def _look(self, frame: UInt8[np.ndarray, "H W 3"], seconds: float) -> None:
        """Let the detector find who is lost or new; faces that were followed stay as they are."""
        followed = [track for track in self._tracks if track.seconds == seconds]
        lost = [track for track in self._tracks if track.seconds != seconds]
        try:
            found = self._detector.require(frame)
        except NoFaceError:
            if not followed:
                raise
            return
        for face in found:
            if any(overlap(face.box, track.face.box) >= SAME_FACE_OVERLAP for track in followed):
                continue
            track = max(lost, key=lambda track: overlap(face.box, track.face.box), default=None)
            if track is not None and overlap(face.box, track.face.box) >= SAME_FACE_OVERLAP:
                lost.remove(track)
                track.face, track.seconds = face, seconds
            else:
                self._people += 1
                self._tracks.append(_Track(self._people, face, seconds))


def overlap(first: Float[np.ndarray, "4"], second: Float[np.ndarray, "4"]) -> float:
    """Return the intersection over union of two boxes."""
    sides = np.minimum(first[2:], second[2:]) - np.maximum(first[:2], second[:2])
    both = float(np.prod(sides.clip(min=0)))
    return both / (float(np.prod(first[2:] - first[:2]) + np.prod(second[2:] - second[:2])) - both)
