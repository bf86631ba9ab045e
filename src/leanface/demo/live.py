"""The demo's webcam, live: frame after frame of a page comes back with the faces' meshes drawn into it."""

import io
import threading
import time
from collections import OrderedDict
from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
from jaxtyping import UInt8
from PIL import Image

from leanface.errors import ArtifactError, NoFaceError
from leanface.photos.crops import FaceCrop
from leanface.photos.tracking import FaceTracker
from leanface.reconstruction.lean_face import LeanFace
from leanface.reconstruction.people import People
from leanface.reconstruction.pictures import overlay
from leanface.reconstruction.result import Reconstruction
from leanface.reconstruction.smoothing import Smoother
from leanface.serving.photos import decode

VIEWERS_MAX = 8
"""How many pages are remembered; the one heard from least recently makes room."""

QUALITY = 80
"""Of the JPEGs that are sent back."""


class Drawn(NamedTuple):
    """A frame with its meshes as a JPEG, and each person's number; None for who is not known yet."""

    jpeg: bytes
    numbers: list[int | None]


class _Viewer(NamedTuple):
    """Who is before one page's camera, and how each network sees them."""

    tracker: FaceTracker
    people: People
    student: Smoother
    teacher: Smoother


class Live:
    """Follows the faces of each page's camera. Any threads may share it; it draws one frame at a time."""

    def __init__(self, teacher: LeanFace, student: LeanFace) -> None:
        """Begin without a page."""
        self._teacher = teacher
        self._student = student
        self._viewers: OrderedDict[str, _Viewer] = OrderedDict()
        self._lock = threading.Lock()

    def draw(self, content: bytes, viewer: str, pixels_max: int, *, both: bool) -> Drawn:
        """Follow the faces into a page's next frame, and draw them.

        Args:
            content: the frame as a JPEG.
            viewer: what the page calls itself.
            pixels_max: of the frame.
            both: draw what the original network sees on the left, and the compressed one's on the right.

        Raises:
            Refused: the frame is no JPEG, or too large.
        """
        frame = decode(content, pixels_max, formats=("JPEG",))
        with self._lock:
            seconds = time.monotonic()
            own = self._viewer(viewer)
            try:
                crops = self._student.crop_tracked(frame, seconds, own.tracker)
            except ArtifactError:  # nobody is there, or nobody upright
                crops = []
            faces = own.people.see(_read(self._student, own.student, crops, seconds), seconds)
            numbers = [None if face.detection is None else face.detection.number for face in faces]
            pictures = [overlay(frame, faces)]
            if both:
                aligned = [self._teacher.align(frame, crop.detection) for crop in crops]
                originals = _read(self._teacher, own.teacher, aligned, seconds)
                pictures.insert(0, overlay(frame, own.people.named(originals)))
        return Drawn(_jpeg(np.concatenate(pictures, axis=1)), numbers)

    def _viewer(self, name: str) -> _Viewer:
        if name not in self._viewers:
            people = People(self._student.surface)
            self._viewers[name] = _Viewer(self._student.tracker(), people, Smoother(), Smoother())
        self._viewers.move_to_end(name)
        while len(self._viewers) > VIEWERS_MAX:
            self._viewers.popitem(last=False)
        return self._viewers[name]


def _read(lean_face: LeanFace, smoother: Smoother, crops: Sequence[FaceCrop], seconds: float) -> list[Reconstruction]:
    if not crops:
        return []
    coefficients = lean_face.read(np.stack([crop.crop for crop in crops]))
    framed, smooth = smoother(crops, coefficients, seconds)
    try:
        return lean_face.sound(lean_face.decode(smooth, framed))
    except NoFaceError:
        return []


def _jpeg(picture: UInt8[np.ndarray, "H W 3"]) -> bytes:
    stream = io.BytesIO()
    Image.fromarray(picture).save(stream, "JPEG", quality=QUALITY)
    return stream.getvalue()
