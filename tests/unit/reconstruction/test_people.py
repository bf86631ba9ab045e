"""Who comes back keeps the number, in each way that a video is followed."""

import io
import re
from collections import defaultdict
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
from PIL import Image

from leanface.reconstruction import LeanFace
from leanface.reconstruction.flow import reconstruct_all
from leanface.reconstruction.outputs import FramesAs, Settings, VideoSettings
from leanface.reconstruction.people import SURE_FRAMES
from leanface.reconstruction.sources import find_sources
from tests.videos import clip, scene, two_heads

QUICK = Settings(mesh=None, texture_px=0, pictures=False)
STEP_S = 0.2
BEFORE, AWAY = SURE_FRAMES + 1, 1
"""How many frames somebody is there, and nobody."""


@pytest.fixture(scope="module")
def frames() -> list[np.ndarray]:
    """One leaves, another one enters and leaves, the first one comes back, and then both are there after a cut."""
    first, second = two_heads()
    seen = [scene((first, 20)), scene((second, 300)), scene((first, 60))]
    alone = [frame for shown in seen for frame in [shown] * BEFORE + [scene()] * AWAY]
    return alone + [scene((first, 400), (second, 20), background=250)] * BEFORE


EXPECTED = {
    1: {*range(BEFORE), *range(2 * (BEFORE + AWAY), 3 * BEFORE + 2 * AWAY)},
    2: set(range(BEFORE + AWAY, 2 * BEFORE + AWAY)),
}
LAST = set(range(3 * (BEFORE + AWAY), 4 * BEFORE + 3 * AWAY))


@pytest.mark.parametrize("frames_as", ["animation", "folders"])
def test_every_frame_of_a_video_has_its_people_s_numbers(
    lean_face: LeanFace, frames: list[np.ndarray], tmp_path: Path, frames_as: FramesAs
) -> None:
    path = clip(tmp_path / "clip.mp4", frames, [round(25 * STEP_S * index) for index in range(len(frames))])
    list(
        reconstruct_all(lean_face, find_sources([str(path)]), tmp_path, QUICK, video=VideoSettings(frames_as=frames_as))
    )
    seen: dict[int, set[int]] = defaultdict(set)
    for file in (tmp_path / "clip").rglob("*"):
        if match := re.fullmatch(r"(\d+)/face_(\d+)\.json", file.relative_to(tmp_path / "clip").as_posix()):
            seen[int(match[2])].add(int(match[1]))
        elif match := re.fullmatch(r"person_(\d+)\.csv", file.name):
            seen[int(match[1])] = {int(line.partition(",")[0]) for line in file.read_text().splitlines()[1:]}
    assert seen == {number: alone | LAST for number, alone in EXPECTED.items()}


def test_a_camera_s_people_are_numbered_as_soon_as_they_are_known(
    lean_face: LeanFace, frames: list[np.ndarray], monkeypatch: pytest.MonkeyPatch
) -> None:
    pytest.importorskip("fastapi", reason="the extra `demo` is not installed")
    from leanface.demo import live

    clock = iter(range(len(frames)))
    monkeypatch.setattr(live, "time", SimpleNamespace(monotonic=lambda: STEP_S * next(clock)))
    camera = live.Live(lean_face, lean_face)
    seen: dict[int | None, set[int]] = defaultdict(set)
    for index, pixels in enumerate(frames):
        stream = io.BytesIO()
        Image.fromarray(pixels).save(stream, "JPEG", quality=95)
        drawn = camera.draw(stream.getvalue(), "me", 10**6, both=index in LAST)
        for number in drawn.numbers:
            seen[number].add(index)

    unknown = {index for index in range(len(frames)) if index % (BEFORE + AWAY) < SURE_FRAMES - 1}
    assert seen.pop(None) == unknown
    assert seen == {number: (alone | LAST) - unknown for number, alone in EXPECTED.items()}
