"""Writes frames as an H.264 video, at the times when they were shown."""

from contextlib import suppress
from fractions import Fraction
from pathlib import Path
from typing import Any

import numpy as np
from jaxtyping import UInt8

TIME_BASE = Fraction(1, 90_000)
RATE_HZ = 30
"""Only a hint for players: each frame has its own time."""

QUALITY = "23"
"""Of x264: its own default, from 0 (no loss) to 51."""


class VideoWriter:
    """An MP4 in the making; PyAV (the extra `video`) encodes. The first frame makes the file."""

    def __init__(self, path: Path) -> None:
        """Begin without a frame."""
        self._path = path
        self._container: Any = None
        self._stream: Any = None

    def add(self, picture: UInt8[np.ndarray, "H W 3"], seconds: float) -> None:
        """Append a frame.

        Args:
            picture: sRGB, each as large as the first; a last odd row or column is cut off.
            seconds: when it is shown; later than the one before.

        Raises:
            Exception: PyAV is not there, or the file cannot be written; see `discard`.
        """
        import av

        height, width = (side // 2 * 2 for side in picture.shape[:2])
        if self._container is None:
            self._container = av.open(str(self._path), "w", format="mp4")
            self._stream = self._container.add_stream("libx264", rate=RATE_HZ)
            self._stream.width, self._stream.height, self._stream.pix_fmt = width, height, "yuv420p"
            self._stream.codec_context.time_base = TIME_BASE
            self._stream.options = {"preset": "veryfast", "crf": QUALITY}
        frame: Any = av.VideoFrame.from_ndarray(np.ascontiguousarray(picture[:height, :width]), format="rgb24")
        frame.pts, frame.time_base = round(seconds / TIME_BASE), TIME_BASE
        self._container.mux(self._stream.encode(frame))

    def close(self) -> None:
        """Complete the file; without a frame there is none."""
        if self._container is not None:
            self._container.mux(self._stream.encode(None))
            self._container.close()

    def discard(self) -> None:
        """Remove the file, as far as it is written."""
        with suppress(Exception):  # PyAV's errors have no common base, and there is nothing to save any more
            self._container.close()
        self._path.unlink(missing_ok=True)
