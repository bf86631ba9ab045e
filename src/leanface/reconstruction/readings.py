"""Pictures found and read: decoded, searched for faces and read by the network at the same time, in flat memory.

Pictures are decoded and searched by some threads, and read by the network in batches in the caller's thread. Each step
takes only so many pictures, and pixels, ahead of the next, so that the slowest sets the pace and memory does not grow.

Whatever goes wrong with one picture, expected or not, is told with that picture; all others are read.
"""

import logging
from collections import deque
from collections.abc import Callable, Generator, Iterable, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import closing
from pathlib import Path
from typing import Any, NamedTuple, TypeVar

import numpy as np
from jaxtyping import Float, UInt8

from leanface.errors import ArtifactError, LeanFaceError, NoFaceError, reason
from leanface.face.coefficients import COUNT
from leanface.files import require_free
from leanface.photos.crops import FaceCrop
from leanface.photos.tracking import FaceTracker
from leanface.reconstruction.lean_face import LeanFace
from leanface.reconstruction.outputs import Photo, Settings, VideoSettings, begin_video, is_done, kind_of
from leanface.reconstruction.result import Reconstruction
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
    """What became of one picture or video, or of a source that could not be opened.

    Attributes:
        faces: how many were written; of a video, people.
        error: why there are none, or what is missing of a video.
    """

    name: str
    faces: int
    error: str | None = None
    skipped: bool = False


class Job(NamedTuple):
    """What is to be done with all pictures.

    Attributes:
        folder: where results go.
        made: see `leanface.reconstruction.outputs.made_with`.
        redo: also what an earlier run has finished.
    """

    lean_face: LeanFace
    folder: Path
    settings: Settings
    video: VideoSettings
    made: dict[str, Any]
    redo: bool


class Found(NamedTuple):
    """A picture with its faces, or why there are none; a frame without a face keeps its pixels."""

    picture: Picture
    photo: UInt8[np.ndarray, "H W 3"] | None = None
    crops: Sequence[FaceCrop] = ()
    error: str | None = None
    done: bool = False
    file: Photo | None = None

    @property
    def pixels(self) -> int:
        """How many are held, or will be as soon as the picture is loaded."""
        if self.photo is not None:
            return self.photo.shape[0] * self.photo.shape[1]
        return 0 if self.done or self.error is not None else self.picture.pixels


class Reading(NamedTuple):
    """A picture with the faces that the network read in it; in a video's frames, steadied over time.

    Attributes:
        forgotten: numbers of people who will not be known again from here on, see `leanface.reconstruction.people`.
    """

    found: Found
    faces: Sequence[Reconstruction] = ()
    forgotten: Sequence[int] = ()


class _Follower(NamedTuple):
    """What keeps a video's faces together from frame to frame."""

    tracker: FaceTracker
    smoother: Smoother


def readings(job: Job, sources: Sequence[Source], workers: int, pixels: int) -> Generator[Reading]:
    """Read some photos, or one video or camera, in order.

    Args:
        workers: how many threads load and search photos, and as many make faces of them; a video takes one of each.
        pixels: how many may be held at once.
    """
    is_video = sources[0].kind != "photo"
    shots = (shot for source in sources for shot in _pictures(job, source))
    batch = 1 if sources[0].kind == "webcam" else BATCH_PICTURES
    follower = _Follower(job.lean_face.tracker(), Smoother()) if is_video else None
    in_order = 1 if follower else workers  # faces are followed from one frame to the next
    found = threaded(
        lambda shot: _find(job, shot, follower),
        shots,
        in_order,
        1 if batch == 1 else workers + batch,
        lambda shot: shot.pixels / pixels,
    )
    # Whatever ends this: the threads end here too, and not whenever garbage is collected.
    with closing(found), ThreadPoolExecutor(in_order) as decoders:
        for some in _batched(found, batch, pixels):
            yield from _read(job.lean_face, some, follower, decoders)


def threaded(
    work: Callable[[T], R],
    items: Iterable[T],
    workers: int,
    room: int,
    share: Callable[[T], float] = lambda _: 0.0,
) -> Generator[R]:
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


def _pictures(job: Job, source: Source) -> Iterator[Found]:
    begun = job.video.frames_as == "animation"
    try:
        for picture in pictures(source, job.video.every, job.video.limit):
            if picture.seconds is not None and not begun:
                begin_video(job.folder, source.name)
                begun = True
            yield Found(picture)
    except Exception as error:
        yield Found(Picture(source, source.name, _nothing), error=told(source.name, error))


def _nothing() -> UInt8[np.ndarray, "H W 3"]:
    return np.empty((0, 0, 3), np.uint8)


def told(name: str, error: Exception) -> str:
    """Tell why a picture is left out; how an unexpected error came about goes to the log."""
    if not isinstance(error, LeanFaceError):
        logger.debug("%s failed unexpectedly", name, exc_info=error)
    return reason(error)


def _find(job: Job, shot: Found, follower: _Follower | None) -> Found:
    if shot.error is not None:
        return shot
    picture, photo, lean_face = shot.picture, None, job.lean_face
    try:
        if (file := _file(picture)) is not None:
            if not job.redo and is_done(job.folder / picture.name, file, job.settings, job.made):
                return shot._replace(done=True)
            _ = file.sha256  # before the pixels are read: if it changes in between, it is done again
        has_folder = picture.seconds is not None and job.video.frames_as == "folders"
        if file is not None or has_folder:
            require_free(job.folder / picture.name, kind_of(picture), job.folder)  # before the work, not after it
        photo = picture.load()
        if follower is None or picture.seconds is None:
            crops = lean_face.crop(photo, job.settings.faces)
        else:
            crops = lean_face.crop_tracked(photo, picture.seconds, follower.tracker, job.settings.faces)
        return shot._replace(file=file, photo=photo, crops=crops)
    except Exception as error:
        kept = photo if follower is not None and isinstance(error, ArtifactError) else None
        return shot._replace(photo=kept, error=told(picture.name, error))


def _file(picture: Picture) -> Photo | None:
    """Return what a photo is read from; None for frames, standard input, and what is not there."""
    source = picture.source
    if source.path is None or source.kind != "photo" or not source.path.is_file():
        return None
    return Photo(source.path)


def _batched(found: Iterable[Found], batch: int, pixels: int) -> Iterator[list[Found]]:
    """Group up to `batch` pictures that have at most about `pixels` pixels together."""
    group: list[Found] = []
    for shot in found:
        group.append(shot)
        if len(group) == batch or sum(member.pixels for member in group) > pixels:
            yield group
            group = []
    if group:
        yield group


def _read(
    lean_face: LeanFace, shots: Sequence[Found], follower: _Follower | None, decoders: ThreadPoolExecutor
) -> Iterator[Reading]:
    """Run the network on all faces of some pictures at once, and where that fails, picture by picture."""
    crops = [crop.crop for shot in shots for crop in shot.crops]
    try:
        coefficients = lean_face.read(np.stack(crops)) if crops else np.empty((0, COUNT), np.float32)
    except Exception as error:
        if len(shots) > 1:
            for shot in shots:
                yield from _read(lean_face, [shot], follower, decoders)
            return
        yield _failed(shots[0], error)
        return
    ends = np.cumsum([len(shot.crops) for shot in shots])

    def decode(shot: Found, own: Float[np.ndarray, "N 257"]) -> Reading:
        framed = shot.crops
        try:
            if follower is not None and shot.picture.seconds is not None:
                framed, own = follower.smoother(framed, own, shot.picture.seconds)
            return Reading(shot, lean_face.sound(lean_face.decode(own, framed)))
        except NoFaceError as error:
            return Reading(shot._replace(error=told(shot.picture.name, error)))
        except Exception as error:
            return _failed(shot, error)

    yield from decoders.map(decode, shots, np.split(coefficients, ends[:-1]))


def _failed(shot: Found, error: Exception) -> Reading:
    return Reading(shot._replace(photo=None, error=told(shot.picture.name, error)))
