"""Many cameras at once are read as each would be alone."""

from collections.abc import Iterator

import numpy as np
import pytest

from leanface.errors import NoFaceError
from leanface.photos.load import load_photo
from leanface.reconstruction.lean_face import LeanFace
from leanface.reconstruction.smoothing import Smoother
from leanface.reconstruction.streams import GpuDecoder, Streams

FRAMES = 3


@pytest.fixture(scope="module")
def lean_face() -> Iterator[LeanFace]:
    with LeanFace.load(runtime="cpu", threads=1) as lean_face:
        yield lean_face


@pytest.fixture(scope="module")
def clips() -> list[list[np.ndarray]]:
    """Two cameras, each of which shows another person, who moves."""
    photos = [np.pad(load_photo(name)[:500, :480], [(0, 9), (0, 9), (0, 0)]) for name in ("grace_hopper", "astronaut")]
    return [[np.ascontiguousarray(photo[2 * step :, 3 * step :]) for step in range(FRAMES)] for photo in photos]


def test_each_stream_is_read_as_alone(lean_face: LeanFace, clips: list[list[np.ndarray]]) -> None:
    with Streams(lean_face, len(clips), "largest") as streams:
        together = [streams(frames, step / 30) for step, frames in enumerate(zip(*clips, strict=True))]
    for number, clip in enumerate(clips):
        tracker, smoother = lean_face.tracker(), Smoother()
        for step, frame in enumerate(clip):
            crops = lean_face.crop_tracked(frame, step / 30, tracker, "largest")
            framed, smooth = smoother(crops, lean_face.read(np.stack([crop.crop for crop in crops])), step / 30)
            (face,) = lean_face.decode(smooth, framed)
            found = together[step][number]
            assert found.crops[0].detection.number == 1
            assert found.crops[0].alignment == framed[0].alignment
            # Other sizes of batches round differently in some runtimes.
            assert np.allclose(found.coefficients, smooth, atol=1e-3)
            assert np.abs(found.vertices_camera[0] - face.vertices_camera).max() < 1e-5


def test_empty_frames_show_nobody(lean_face: LeanFace, clips: list[list[np.ndarray]]) -> None:
    gray = np.full((120, 160, 3), 128, np.uint8)
    with pytest.raises(NoFaceError):
        lean_face.crop(gray)
    with Streams(lean_face, 3, "largest") as streams:
        seen = streams([None, clips[0][0], gray], 0.0)
        unseen = streams([gray, gray, None], 1 / 30)
    assert [len(faces.crops) for faces in seen] == [0, 1, 0]
    assert [faces.vertices_camera.shape[0] for faces in seen] == [0, 1, 0]
    assert [len(faces.coefficients) for faces in unseen] == [0, 0, 0]


def test_another_number_of_frames_is_refused(lean_face: LeanFace) -> None:
    with Streams(lean_face, 2) as streams, pytest.raises(ValueError, match="a frame of each of 2 streams, got 1"):
        streams([None], 0.0)


def test_all_faces_at_once_decode_as_one_by_one(lean_face: LeanFace) -> None:
    rows = np.random.default_rng(0).normal(0, 0.3, (5, 257)).astype(np.float32)
    at_once = GpuDecoder(lean_face, "cpu")(rows)
    alone = np.stack([lean_face.surface.decoder.decode(row).vertices_camera for row in rows])
    assert np.abs(at_once - alone).max() < 1e-6
