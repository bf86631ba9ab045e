"""Measure how many frames of a video become coefficients in a second, as one animation and as a folder per frame.

    python -m tools.face_finding.video_speed

A rendered head turns, speaks and wanders, as in `tools.face_finding.tracking`. Both ways take turns with the same
files, and write what `leanface reconstruct CLIP --mesh none --texture 0 --no-pictures` does; decoding is included.
"""

import argparse
import tempfile
import time
from fractions import Fraction
from pathlib import Path
from typing import Any

import numpy as np
import torch
from jaxtyping import UInt8

from leanface.device import describe_device
from leanface.errors import ArtifactError
from leanface.face.morphable_model import load_morphable_model
from leanface.metrics.ratio import paired_ratio
from leanface.reconstruction import LeanFace
from leanface.reconstruction.flow import reconstruct_all
from leanface.reconstruction.outputs import FramesAs, Settings, VideoSettings
from leanface.reconstruction.sources import find_sources
from tools.face_finding.tracking import RATE_HZ, rendered_clip

SIZES = ((640, 480), (1280, 720))
TIMES_OVER = 6
"""How often the clip plays, forwards and backwards in turn."""

WAYS: tuple[FramesAs, FramesAs] = ("folders", "animation")


def main() -> None:
    """Measure, and print a table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--seed", type=int, default=0, help="of the clip (default: 0)")
    parser.add_argument("--rounds", type=int, default=7, help="how often each way is measured (default: 7)")
    options = parser.parse_args()
    torch.set_num_threads(1)
    frames = rendered_clip(load_morphable_model(), options.seed).frames
    frames = (frames + frames[::-1]) * (TIMES_OVER // 2)
    print(f"{describe_device()['cpu']}: {len(frames)} frames, {options.rounds} rounds")
    with tempfile.TemporaryDirectory() as folder, LeanFace.load() as lean_face:
        for width, height in SIZES:
            path = _encode(Path(folder) / f"{width}x{height}.mp4", frames, width, height)
            seconds: dict[str, list[float]] = {way: [] for way in WAYS}
            for turn in range(options.rounds + 1):  # the first warms up
                for way in WAYS:
                    elapsed = _measure(lean_face, path, way)
                    seconds[way] += [elapsed] if turn else []
            for way in WAYS:
                rate = len(frames) / float(np.median(seconds[way]))
                print(f"{width}x{height} as {way}: {rate:.0f} frames per second")
            ratio = paired_ratio(*(seconds[way] for way in WAYS))
            interval = "too few rounds for an interval"
            if ratio.low is not None and ratio.high is not None:
                interval = f"95 % interval {ratio.low:.2f} to {ratio.high:.2f}"
            print(f"{width}x{height}: an animation is {ratio.value:.2f} times as fast ({interval})")


def _encode(path: Path, frames: list[UInt8[np.ndarray, "H W 3"]], width: int, height: int) -> Path:
    """Encode frames as H.264, at the scale they have, in the middle of larger ones or cut to smaller ones."""
    import av

    with av.open(str(path), "w") as container:
        stream: Any = container.add_stream("libx264", rate=RATE_HZ)
        stream.width, stream.height, stream.pix_fmt = width, height, "yuv420p"
        for index, pixels in enumerate(frames):
            rows, columns = (
                (np.arange(side) + (own - side) // 2).clip(0, own - 1)
                for side, own in zip((height, width), pixels.shape, strict=False)
            )
            frame: Any = av.VideoFrame.from_ndarray(pixels[np.ix_(rows, columns)], format="rgb24")
            frame.pts, frame.time_base = index, Fraction(1, RATE_HZ)
            container.mux(stream.encode(frame))
        container.mux(stream.encode(None))
    return path


def _measure(lean_face: LeanFace, path: Path, way: FramesAs) -> float:
    settings = Settings(mesh=None, texture_px=0, pictures=False)
    with tempfile.TemporaryDirectory() as out:
        start = time.perf_counter()
        outcomes = list(
            reconstruct_all(
                lean_face, find_sources([str(path)]), Path(out), settings, video=VideoSettings(frames_as=way)
            )
        )
        elapsed = time.perf_counter() - start
    if errors := [outcome.error for outcome in outcomes if outcome.error is not None]:
        raise ArtifactError(f"{len(errors)} frames of the clip could not be read: {errors[0]}")
    return elapsed


if __name__ == "__main__":
    main()
