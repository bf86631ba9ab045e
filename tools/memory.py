"""Measure whether memory stays flat over a folder of many photos and over a long video.

    python -m tools.memory

Writes what `leanface reconstruct --mesh none --texture 0 --no-pictures` does, to a temporary folder, and prints this
process's memory along the way. The exit status is 1 if memory grows by more than GROWTH_MB after the first quarter.
"""

import argparse
import sys
import tempfile
from collections.abc import Sequence
from fractions import Fraction
from pathlib import Path
from typing import Any

import numpy as np
import psutil
from PIL import Image

from leanface import LeanFace, load_photo
from leanface.errors import ArtifactError
from leanface.photos.load import PACKAGED_PHOTOS
from leanface.reconstruction.flow import reconstruct_all
from leanface.reconstruction.outputs import Settings
from leanface.reconstruction.sources import find_sources

PHOTO_PX = 256
WIDTH, HEIGHT, RATE_HZ = 640, 480, 30
GROWTH_MB = 32
"""A video's tables take a kilobyte per frame and person; the rest is what allocators keep back."""

SETTINGS = Settings(mesh=None, texture_px=0, pictures=False)
POINTS = 8


def main() -> None:
    """Measure both, and print a line each."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--photos", type=int, default=1000, help="(default: 1000)")
    parser.add_argument("--frames", type=int, default=3000, help="of the video (default: 3000)")
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder, LeanFace.load() as lean_face:
        photos, video = Path(folder) / "photos", Path(folder) / "clip.mp4"
        _write_photos(photos, options.photos)
        _write_video(video, options.frames)
        sizes_mb = {
            f"{options.photos} photos": _watch(lean_face, photos, Path(folder) / "a"),
            f"{options.frames} frames": _watch(lean_face, video, Path(folder) / "b"),
        }
    grown = {name: sizes[-1] - max(sizes[: len(sizes) // 4]) for name, sizes in sizes_mb.items()}
    for name, sizes in sizes_mb.items():
        places: list[int] = np.linspace(0, len(sizes) - 1, POINTS).astype(int).tolist()
        along = ", ".join(f"{sizes[place]:.0f}" for place in places)
        print(f"{name}: {along} MB; {grown[name]:+.1f} MB after the first quarter, at most {GROWTH_MB} allowed")
    sys.exit(max(grown.values()) > GROWTH_MB)


def _watch(lean_face: LeanFace, source: Path, out: Path) -> Sequence[float]:
    """Reconstruct, and return this process's resident memory (MB) after each picture or frame."""
    process, sizes = psutil.Process(), list[float]()

    def note(*_: object) -> None:
        sizes.append(process.memory_info().rss / 1e6)

    for outcome in reconstruct_all(lean_face, find_sources([str(source)]), out, SETTINGS, watch=note):
        if outcome.error is not None:
            raise ArtifactError(f"{outcome.name} failed: {outcome.error}")
        if source.is_dir():
            note()
    return sizes


def _write_photos(folder: Path, count: int) -> None:
    folder.mkdir()
    images = [Image.fromarray(load_photo(name)) for name in PACKAGED_PHOTOS]
    for image in images:
        image.thumbnail((PHOTO_PX, PHOTO_PX))
    for number in range(count):
        images[number % len(images)].save(folder / f"{number}.jpg", quality=95)


def _write_video(path: Path, count: int) -> None:
    """Let a camera sway before a portrait."""
    import av

    margin = [(HEIGHT // 2, HEIGHT // 2), (WIDTH // 2, WIDTH // 2), (0, 0)]
    wall = np.pad(load_photo("grace_hopper"), margin, "edge")
    down, across = ((side - visible) // 2 for side, visible in zip(wall.shape, (HEIGHT, WIDTH), strict=False))
    with av.open(str(path), "w") as container:
        stream: Any = container.add_stream("libx264", rate=RATE_HZ)
        stream.width, stream.height, stream.pix_fmt = WIDTH, HEIGHT, "yuv420p"
        for number in range(count):
            top, left = down - 60 + int(20 * np.sin(number / 23)), across + int(60 * np.sin(number / 17))
            frame: Any = av.VideoFrame.from_ndarray(
                np.ascontiguousarray(wall[top : top + HEIGHT, left : left + WIDTH]), format="rgb24"
            )
            frame.pts, frame.time_base = number, Fraction(1, RATE_HZ)
            container.mux(stream.encode(frame))
        container.mux(stream.encode(None))


if __name__ == "__main__":
    main()
