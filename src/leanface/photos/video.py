"""Reads videos and cameras frame by frame, as every player shows them: upright, in square pixels, in sRGB's colors.

PyAV (FFmpeg) decodes; it comes with the extra `video`. Damaged videos are common, and PyAV's errors have no common
base: whatever goes wrong once a file is open ends up in `Video.loss`, after all frames that can be read.
"""

import sys
import threading
from collections.abc import Iterator
from dataclasses import dataclass
from fractions import Fraction
from functools import cache
from itertools import chain
from pathlib import Path
from typing import Any, Self, cast

import numpy as np
from jaxtyping import UInt8

from leanface.device import usable_cores
from leanface.errors import ArtifactError, BackendError, reason
from leanface.photos.pixels import BY_ORIENTATION, Turn, by_display_matrix

PIXELS_MAX = 2**26
"""Of a frame: twice 8K."""

CAMERA_FORMATS = {"linux": ("v4l2", "/dev/video{}"), "darwin": ("avfoundation", "{}"), "win32": ("dshow", "video={}")}
"""FFmpeg's device format and file by platform; {} is the camera's number."""

# FFmpeg's numbers (libavutil/pixfmt.h).
_BT709, _UNSPECIFIED, _BT601 = 1, 2, 6
_BT2020, _P3 = 9, {11, 12}
_PQ, _HLG, _SRGB = 16, 18, 13
_MATRICES = {1, 4, 5, 6, 7, 9}
"""Color matrices that FFmpeg converts from."""

_WITH_NAMED_DATA = {"png", "apng"}
"""Codecs whose frames may hold an ICC profile with a name, which PyAV 18.1's `SideData` frees twice: a crash."""

_HD_WIDTH, _HD_HEIGHT = 1280, 720


@dataclass(frozen=True, eq=False)
class Frame:
    """One frame.

    Attributes:
        index: its place among those that can be decoded, from 0.
        seconds: when it is shown, from the start of the video; it grows from frame to frame.
    """

    index: int
    seconds: float
    _decoded: Any
    _look: "_Look"

    def image(self) -> UInt8[np.ndarray, "H W 3"]:
        """Convert to upright RGB with square pixels. Any thread may call it, also after the video is closed."""
        return self._look.rgb(self._decoded)

    @property
    def pixels(self) -> int:
        """Count them, as stored."""
        return self._decoded.width * self._decoded.height


class Video:
    """An open video or camera. Use it in a `with` statement, and call `frames` once."""

    def __init__(self, container: Any, label: str, *, live: bool, threads: int) -> None:
        """Use `open_video` or `open_camera`.

        Raises:
            ArtifactError: the container holds no video that can be decoded.
        """
        self.label = label
        self.loss: str | None = None
        """After the last frame: what could not be read, and how much; None where all could."""
        self._container = container
        self._stream = _video_stream(container, label)
        codec = self._stream.codec_context
        # Threads by frame hold back a frame each, which a live picture must not.
        codec.thread_type, codec.thread_count = "SLICE" if live else "AUTO", threads
        codec.options = {"max_pixels": str(PIXELS_MAX)}
        self._live = live
        self._look = _Look(self._stream.sample_aspect_ratio, codec.name)
        self._progress = _Progress(self._stream.average_rate or self._stream.guessed_rate)
        self._start = (container.start_time or 0) / 1e6
        # MP4 and its kin list each sample in the file; a cut by an edit list leaves some that are not meant to be seen.
        self._listed = len(self._stream.index_entries) if container.format.name.startswith("mov") else None
        frames: int = self._stream.frames
        self.frames_promised: int | None = min(frames, self._listed or frames) or None
        """How many frames the container says there are; None if it does not say."""
        # AVI counts frames, repeated ones too; its duration is guessed from the file's size.
        counted = frames * self._progress.interval if self._listed is None else 0.0
        self.seconds_promised: float | None = max((container.duration or 0) / 1e6, counted) or None
        """How long the container says it takes; None if it does not say."""

    def expected(self, every: int = 1, limit: int | None = None) -> int | None:
        """Estimate how many frames `frames` gives; None if the container does not say how long it is."""
        count = self.frames_promised
        if count is None and self.seconds_promised is not None:
            count = max(1, round(self.seconds_promised / self._progress.interval))
        if count is None:
            return limit
        kept = -(-count // every)
        return kept if limit is None else min(kept, limit)

    def frames(self, every: int = 1, limit: int | None = None) -> Iterator[Frame]:
        """Decode frame after frame, in the order in which they are shown; damaged ones are left out.

        Args:
            every: keep every Nth frame; the others are decoded, but not converted.
            limit: end after so many frames, at least 1.
        """
        index = -1
        taken = 0
        last = float("-inf")
        for decoded in self._decoded():
            index += 1
            # Streams with broken times, or none, are shown at their rate.
            seconds = None if decoded.pts is None else float(decoded.pts * self._stream.time_base) - self._start
            if seconds is None or seconds <= last:
                seconds = 0.0 if index == 0 else last + self._progress.interval
            last = seconds
            if index % every:
                continue
            yield Frame(index, seconds, decoded, self._look)
            taken += 1
            if taken == limit:
                return
        self.loss = self._judge()

    def _decoded(self) -> Iterator[Any]:
        """Decode all packets; what cannot be is counted."""
        progress = self._progress
        for packet in chain(self._packets(), [None]):  # None: what the decoder still holds
            try:
                decoded: list[Any] = self._stream.decode(packet)
            except Exception as error:  # of one packet: the next may be whole
                progress.failed(error)
                continue
            for frame in decoded:
                if not frame.is_corrupt:
                    progress.frames += 1
                    yield frame
                elif progress.frames or frame.key_frame:
                    # At the start, frames that build on those before it are no loss.
                    progress.failed("damaged frames")

    def _packets(self) -> Iterator[Any]:
        progress, stream = self._progress, self._stream
        try:
            for packet in self._container.demux():
                moment = packet.pts if packet.pts is not None else packet.dts
                if moment is None and not packet.size:  # PyAV's mark of the end
                    continue
                own = packet.stream_index == stream.index
                begin = None if moment is None or packet.time_base is None else float(moment * packet.time_base)
                if begin is not None:
                    length = float(packet.duration * packet.time_base) if packet.duration else 0.0
                    progress.reached(begin + (length or (progress.interval if own else 0.0)))
                if own:
                    progress.saw(begin)
                    progress.hidden += packet.is_discard
                    if packet.size:  # an empty one repeats the last frame, and would end the decoder
                        yield packet
        except Exception as error:  # PyAV's errors have no common base
            progress.error = _reason(error)

    def _judge(self) -> str | None:
        """Compare what was read with what was promised."""
        progress, frames, label = self._progress, self._progress.frames, self.label
        if self._live:
            return f"the camera of {label} stopped after {frames} frames ({progress.error or 'no more came'})."
        promised, seconds = self.frames_promised, self.seconds_promised
        why = "it is damaged or was cut short" + (f" ({progress.error})" if progress.error else "")
        promise = f"{promised:,} frames" if promised else f"{seconds:.2f} s" if seconds else ""
        if not frames:
            return f"{label} has no frame that can be read{promise and f', although it promises {promise}'}: {why}."
        cut = self._listed is not None and progress.packets < (promised or 0)
        if cut or progress.failures:
            count = max((promised or 0) - progress.hidden, frames + max(1, progress.failures))
            return f"only {frames:,} of {count:,} frames of {label} could be read: {why}."
        counted = self._listed is not None and promised
        missing = 0.0 if counted else (seconds or 0.0) - (progress.end - self._start)
        # How long the last frame is shown is not always known.
        if missing > 0.9 * max(progress.longest, progress.interval):
            return f"{label} promises {promise} and ends {missing:.2f} s early, after {frames:,} frames: {why}."
        return f"{label} could not be read to its end: {why}." if progress.error else None

    def close(self) -> None:
        """Close the file; frames that were read stay valid."""
        self._container.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()


def open_video(path: Path, threads: int | None = None) -> Video:
    """Open a video file.

    Args:
        threads: of the decoder; all usable cores if not given.

    Raises:
        ArtifactError: the file is missing, damaged, or has no video in it.
        BackendError: PyAV is not installed.
    """
    if not path.is_file():
        raise ArtifactError(f"no video at {path}.")
    if not path.stat().st_size:
        raise ArtifactError(f"{path} cannot be opened as a video: it is empty.")
    # "file:" keeps a colon in the name from meaning a protocol; a playlist must not lead to the network.
    container = _open(
        f"{path} as a video",
        f"file:{path.absolute()}",
        " It is damaged, was cut short while it was written, or is something else.",
        container_options={"protocol_whitelist": "file"},
    )
    return _video(container, str(path), live=False, threads=threads or usable_cores())


def open_camera(number: int) -> Video:
    """Open a camera.

    Raises:
        ArtifactError: there is no such camera.
        BackendError: PyAV is not installed.
    """
    device, file = CAMERA_FORMATS.get(sys.platform, CAMERA_FORMATS["linux"])
    label = f"webcam:{number}"
    return _video(
        _open(f"the camera of '{label}'", file.format(number), format=device), label, live=True, threads=usable_cores()
    )


def _open(what: str, file: str, advice: str = "", **options: Any) -> Any:
    try:
        import av
    except ImportError as error:
        raise BackendError(f"videos and webcams need PyAV ({error}): `pip install 'leanface[video]'`.") from None
    try:
        return cast(Any, av.open(file, metadata_errors="replace", **options))
    except Exception as error:  # PyAV's errors have no common base
        raise ArtifactError(f"cannot open {what} ({_reason(error)}).{advice}") from None


def _video(container: Any, label: str, *, live: bool, threads: int) -> Video:
    try:
        return Video(container, label, live=live, threads=threads)
    except BaseException:
        container.close()
        raise


def _video_stream(container: Any, label: str) -> Any:
    """Return the stream that a player would show, which is never an attached cover picture."""
    from av.stream import Disposition

    stills = Disposition.attached_pic | Disposition.timed_thumbnails
    videos: list[Any] = list(container.streams.video)
    streams = [stream for stream in videos if not stream.disposition & stills]
    if not streams:
        only = "only a cover picture in it, and no video" if videos else "no pictures in it"
        raise ArtifactError(f"{label} has {only}.")
    best = container.streams.best("video")
    stream: Any = best if best in streams else streams[0]
    if stream.codec_context is None:
        raise ArtifactError(
            f"{label} holds a video of an unknown kind: it is damaged, or of a codec that FFmpeg lacks."
        )
    if stream.width * stream.height > PIXELS_MAX:
        raise ArtifactError(f"{label} has frames of {stream.width}x{stream.height} pixels, too many to be a video.")
    return stream


class _Progress:
    """What has been read of a stream."""

    def __init__(self, rate: Fraction | None) -> None:
        self.interval = 1 / float(rate) if rate else 0.04
        self.frames = 0
        self.packets = 0
        self.hidden = 0
        """Packets that are decoded only because frames that are shown build on them."""
        self.failures = 0
        self.error: str | None = None
        self.end = 0.0
        """When the last thing in the file ends, sound included."""
        self.longest = 0.0
        """The longest time between two frames."""
        self._last: float | None = None

    def failed(self, error: Exception | str) -> None:
        self.failures += 1
        self.error = self.error or (error if isinstance(error, str) else _reason(error))

    def reached(self, seconds: float) -> None:
        self.end = max(self.end, seconds)

    def saw(self, seconds: float | None) -> None:
        self.packets += 1
        if seconds is not None:
            if self._last is not None:
                self.longest = max(self.longest, seconds - self._last)
            self._last = max(seconds, self._last or seconds)


class _Look:
    """How the decoded frames of one video become RGB."""

    def __init__(self, sample_aspect_ratio: Fraction | None, codec: str) -> None:
        from av.video.reformatter import VideoReformatter

        # One for all frames: each has tables of its own to make. It serves one thread at a time.
        self._reformatter, self._converting = VideoReformatter(), threading.Lock()
        ratio = sample_aspect_ratio or Fraction(1)
        self._ratio = ratio if Fraction(1, 8) <= ratio <= 8 else Fraction(1)
        self._has_named_data = codec in _WITH_NAMED_DATA

    def rgb(self, frame: Any) -> UInt8[np.ndarray, "H W 3"]:
        """Return the frame's RGB; see `Frame.image`."""
        width, height = self._square(frame.width, frame.height)
        if not frame.format.is_rgb and frame.colorspace not in _MATRICES:
            frame.colorspace = _matrix(frame)
        wide = frame.color_trc in (_PQ, _HLG) or frame.color_primaries in {_BT2020, *_P3}
        with self._converting:
            converted = (_from_wide if wide else _converted)(self._reformatter, frame, width, height)
        turn = _quarter_turn(frame) if self._has_named_data else _turn(frame)
        return turn.apply(converted.to_ndarray())

    def _square(self, width: int, height: int) -> tuple[int, int]:
        """Stretch the shorter side of a pixel to square pixels, so that nothing is lost."""
        if self._ratio >= 1:
            return max(1, round(width * self._ratio)), height
        return width, max(1, round(height / self._ratio))


def _from_wide(reformatter: Any, frame: Any, width: int, height: int) -> Any:
    """Bring wide colors and high brightness into sRGB; reference white (203 cd/m2) becomes white, as in BT.2408."""
    high = frame.color_trc in (_PQ, _HLG)
    if not high:
        frame.color_trc = _BT709  # shown as it is, as all video of ordinary brightness
    if frame.color_primaries in (0, _UNSPECIFIED):
        frame.color_primaries = _BT2020
    with _converting_wide:
        try:
            return _wide_converter().reformat(
                frame,
                width,
                height,
                "rgb24",
                interpolation=_accurate(),
                dst_color_trc=_SRGB if high else _BT709,
                dst_color_primaries=_BT709,
                threads=usable_cores(),
            )
        except Exception:  # a combination that FFmpeg cannot convert
            return _converted(reformatter, frame, width, height)


_converting_wide = threading.Lock()


@cache
def _wide_converter() -> Any:
    """Make the converter for all videos, one thread at a time: it takes seconds to make its tables, and keeps them."""
    from av.video.reformatter import VideoReformatter

    return VideoReformatter()


def _converted(reformatter: Any, frame: Any, width: int, height: int) -> Any:
    """Convert a frame to RGB of ordinary colors."""
    if (width, height) == (frame.width, frame.height) and frame.format.name in ("yuv420p", "yuvj420p", "rgb24"):
        return reformatter.reformat(frame, format="rgb24", threads=1)  # FFmpeg's fast path is exact for these
    return reformatter.reformat(frame, width, height, "rgb24", interpolation=_accurate(), threads=1)


def _accurate() -> Any:
    from av.video.reformatter import Interpolation

    return Interpolation.BICUBIC | Interpolation.ACCURATE_RND | Interpolation.FULL_CHR_H_INT


def _matrix(frame: Any) -> int:
    """Guess the color matrix of a video that names none, as players do."""
    if frame.color_primaries == _BT2020:
        return _BT2020
    return _BT709 if frame.width >= _HD_WIDTH or frame.height >= _HD_HEIGHT else _BT601


_BY_QUARTERS = {0: 1, 1: 8, 2: 3, 3: 6}
"""EXIF orientation by counterclockwise quarter turns."""


def _turn(frame: Any) -> Turn:
    from av.sidedata.sidedata import SideDataContainer

    try:
        # What `frame.side_data` gives, but the frame would hold that, too: a cycle, which waits for Python's collector
        # with a megabyte that it does not see.
        container = cast(Any, SideDataContainer)(frame)
        matrix = next((data for data in container if data.type.name == "DISPLAYMATRIX"), None)
    except ValueError:  # beside it is something that PyAV has no name for
        return _quarter_turn(frame)
    return Turn() if matrix is None else by_display_matrix(bytes(matrix))


def _quarter_turn(frame: Any) -> Turn:
    """Read the display matrix without PyAV's `SideData`; this leaves only mirror images unseen."""
    return BY_ORIENTATION[_BY_QUARTERS[round(frame.rotation / 90) % 4]]


def _reason(error: Exception) -> str:
    """Return FFmpeg's words without the file's path and the error's number, or the error's own."""
    words = getattr(error, "strerror", None)
    return words if isinstance(words, str) and words else reason(error)
