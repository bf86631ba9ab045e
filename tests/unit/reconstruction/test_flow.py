"""Many pictures: what fails in one is that one's, and memory is bounded."""

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from leanface.errors import ArtifactError
from leanface.photos.load import load_photo
from leanface.reconstruction import LeanFace, flow
from leanface.reconstruction.flow import Outcome, reconstruct_all, threaded
from leanface.reconstruction.outputs import Settings
from leanface.reconstruction.sources import Source, find_sources

QUICK = Settings(mesh=None, texture_px=0, pictures=False)
ODD_HEIGHT = 257


@pytest.fixture(scope="module")
def lean_face(exported: Any) -> Iterator[LeanFace]:
    with LeanFace.load(exported.fp32, threads=1) as opened:
        yield opened


@pytest.fixture
def photos(tmp_path: Path) -> list[Source]:
    """Six faces; that of photo 2 is a pixel higher."""
    face = Image.fromarray(load_photo("astronaut"))
    for number in range(6):
        face.resize((256, ODD_HEIGHT if number == 2 else 256)).save(tmp_path / f"{number}.png")
    return find_sources([str(tmp_path)])


def odd(array: np.ndarray) -> bool:
    return array.shape[0] == ODD_HEIGHT


def only_the_odd_one_failed(outcomes: list[Outcome], words: str) -> None:
    assert [outcome.name for outcome in outcomes] == [str(number) for number in range(6)]
    assert [outcome.faces for outcome in outcomes] == [1, 1, 0, 1, 1, 1]
    (error,) = [outcome.error for outcome in outcomes if outcome.error is not None]
    assert error == words


@pytest.mark.parametrize(
    ("error", "words"),
    [
        (
            RuntimeError("you tried to allocate 9 bytes\nat <Tensor object at 0x7f00>"),
            "RuntimeError: you tried to allocate 9 bytes",
        ),
        (MemoryError(), "there is not enough memory"),
        (ValueError("of <array at 0x7f3a>"), "ValueError: of <array>"),
        (KeyError(), "KeyError"),
        (OSError(28, "No space left on device"), "OSError: [Errno 28] No space left on device"),
        (ArtifactError("it is damaged."), "it is damaged."),
    ],
)
@pytest.mark.parametrize("step", ["crop", "decode"])
def test_any_error_of_a_picture_is_that_picture_s(
    lean_face: LeanFace,
    photos: list[Source],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    step: str,
    error: Exception,
    words: str,
) -> None:
    crop, decode = lean_face.crop, lean_face.decode

    def failing_crop(image: np.ndarray, faces: Any) -> Any:
        if odd(image):
            raise error
        return crop(image, faces)

    heights = iter(range(6))

    def failing_decode(coefficients: np.ndarray, crops: Any) -> Any:
        if next(heights) == 2:
            raise error
        return decode(coefficients, crops)

    monkeypatch.setattr(flow, "usable_cores", lambda: 1)
    monkeypatch.setattr(lean_face, step, failing_crop if step == "crop" else failing_decode)
    outcomes = list(reconstruct_all(lean_face, photos, tmp_path / "out", QUICK))
    only_the_odd_one_failed(outcomes, words)
    assert sorted(path.parent.name for path in tmp_path.glob("out/*/face_1.json")) == list("01345")


def test_where_the_network_fails_for_some_pictures_it_reads_each_alone(
    lean_face: LeanFace, photos: list[Source], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    read = lean_face.read
    bad: list[bytes] = []
    crop = lean_face.crop

    def noting_crop(image: np.ndarray, faces: Any) -> Any:
        crops = crop(image, faces)
        if odd(image):
            bad.append(crops[0].crop.tobytes())
        return crops

    def failing_read(crops: np.ndarray) -> np.ndarray:
        if any(crop.tobytes() in bad for crop in crops):
            raise RuntimeError("the device is gone")
        return read(crops)

    monkeypatch.setattr(lean_face, "crop", noting_crop)
    monkeypatch.setattr(lean_face, "read", failing_read)
    only_the_odd_one_failed(
        list(reconstruct_all(lean_face, photos, tmp_path / "out", QUICK)), "RuntimeError: the device is gone"
    )


def test_ctrl_c_ends_everything(
    lean_face: LeanFace, photos: list[Source], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def interrupted(crops: np.ndarray) -> np.ndarray:
        raise KeyboardInterrupt

    monkeypatch.setattr(lean_face, "read", interrupted)
    with pytest.raises(KeyboardInterrupt):
        list(reconstruct_all(lean_face, photos, tmp_path / "out", QUICK))


def test_large_items_wait_for_room() -> None:
    """At most a whole share is ahead of what has come back, or a single item that is larger."""
    shares = [0.4, 0.4, 0.4, 3.0, 0.4, 0.0, 0.4, 1.0, 0.4] * 3
    started: list[int] = []

    def work(index: int) -> int:
        started.append(index)
        return index

    for position, result in enumerate(threaded(work, range(len(shares)), 4, 8, lambda index: shares[index])):
        assert result == position
        ahead = [shares[index] for index in started if index > position]
        assert sum(ahead) <= 1 or len(ahead) == 1
    assert len(started) == len(shares)
