"""One contract for everything that can run an exported network."""

from abc import ABC, abstractmethod
from collections.abc import Callable, Generator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import ClassVar, Self, final

import numpy as np
from jaxtyping import Float32, UInt8

from leanface.device import quota_binds, usable_cores
from leanface.errors import ArtifactError, BackendError
from leanface.networks.interface import INPUT_NAME, OUTPUT_NAME

Pixels = UInt8[np.ndarray, "batch height width 3"]
Planes = Float32[np.ndarray, "batch 3 height width"]
Images = Pixels | Planes
"""RGB: bytes as they are cut from a photo, or the same divided by 255 as planes."""

ACCEPTED = (np.dtype(np.uint8), np.dtype(np.float32))

Coefficients = Float32[np.ndarray, "batch outputs"]

Range = tuple[int, int | None]
"""Smallest and largest allowed value, both included; None: no upper limit."""


@dataclass(frozen=True)
class InputSpec:
    """The images that `Runtime.run` accepts, C-contiguous: uint8 (B,H,W,3), or float32 (B,3,H,W) in [0,1]; RGB.

    Attributes:
        batch: allowed batch sizes.
        side: allowed heights and widths (px), of multiples of `multiple_of`.
    """

    batch: Range = (1, None)
    side: Range = (64, None)
    multiple_of: int = 16
    name: str = INPUT_NAME

    @classmethod
    def of_shape(cls, shape: Sequence[int | None]) -> Self:
        """What a file accepts whose input has this shape (batch, 3, height, width); None: a dynamic dimension."""
        batch, _, height, _ = shape  # images are square where their size is fixed
        allowed = cls.batch if batch is None else (batch, batch)
        return cls(allowed) if height is None else cls(allowed, (height, height), multiple_of=1)

    def largest_batch(self, limit: int) -> int:
        """Return the largest batch size up to `limit` that is accepted."""
        return min(limit, self.batch[1] or limit)

    def check(self, images: Images) -> None:
        """Refuse what would have to be cast, copied or padded.

        Raises:
            BackendError: says what is wrong and what to pass instead.
        """
        if not isinstance(images, np.ndarray):  # pyright: ignore[reportUnnecessaryIsInstance]
            raise BackendError(f"{self.name}: expected a numpy array, got {type(images).__name__}")
        if images.dtype not in ACCEPTED:
            raise BackendError(
                f"{self.name}: expected uint8 or float32, got {images.dtype}; give pixels as they are, or divided by "
                "255 as float32."
            )
        channels, layout = (3, "height, width, 3") if images.dtype == np.uint8 else (1, "3, height, width")
        if images.ndim != 4 or images.shape[channels] != 3:
            raise BackendError(f"{self.name}: expected {images.dtype} of shape (batch, {layout}), got {images.shape}")
        if not _within(images.shape[0], self.batch):
            raise BackendError(f"{self.name}: expected a batch of {_words(self.batch)}, got {images.shape[0]}")
        sides = images.shape[1:3] if channels == 3 else images.shape[2:]
        for axis, length in zip(("height", "width"), sides, strict=True):
            if not _within(length, self.side) or length % self.multiple_of:
                raise BackendError(
                    f"{self.name}: expected a {axis} of {_words(self.side)} px in multiples of "
                    f"{self.multiple_of}, got {length}"
                )
        if not images.flags.c_contiguous:
            raise BackendError(f"{self.name}: expected a C-contiguous array; pass numpy.ascontiguousarray(images).")


def planes_of(pixels: Pixels) -> Planes:
    """Divide bytes by 255 and separate the channels: what a network's first layer reads."""
    planes = np.ascontiguousarray(pixels.transpose(0, 3, 1, 2), dtype=np.float32)
    return np.divide(planes, np.float32(255), out=planes)


class Runtime(ABC):
    """A network that is ready to run, and all that it holds on the device, until `close`.

    It never pads or guesses: an input that does not fit is refused. Each of its streams runs one batch at a time and
    has its own threads or device buffers; different streams run at the same time (`leanface.runtime.pool`), each in its
    caller's thread, or all begun by one thread if the runtime `is_asynchronous`. Subclasses implement `_open`, `_infer`
    (or `_begin`) and `_close`, on a GPU `_resident` too; the lifecycle and the checks are here, the same for all.
    """

    name: ClassVar[str]
    """The runtime's name in `leanface.catalog.RUNTIMES`."""

    takes_bytes: ClassVar[bool] = False
    """Whether `_infer` gets uint8 images as they are; else they become `Planes` before."""

    is_asynchronous: ClassVar[bool] = False
    """Whether `begin` returns before the result is there."""

    outputs: int
    """How many numbers the network answers an image with; `_open` says it."""

    @final
    def __init__(self, path: Path, threads: int = 0, streams: int = 1) -> None:
        """Load what lies at `path`.

        Args:
            path: a bundle, an ONNX file or an engine, as the runtime needs.
            threads: on the CPU, divided among the streams; 0 leaves the choice to the runtime.
            streams: how many batches can run at the same time.

        Raises:
            ArtifactError: the file is missing, damaged, or not what this runtime reads.
            BackendError: the runtime cannot run here.
        """
        self._closed = True
        if not path.exists():
            raise ArtifactError(f"{path} is missing; run `dvc repro` to make it.")
        self._streams = streams
        self._input_spec = self._open(path, threads, streams)
        self._closed = False

    @property
    def input_spec(self) -> InputSpec:
        """What `run` accepts."""
        return self._input_spec

    @property
    def streams(self) -> int:
        """How many batches can run at the same time."""
        return self._streams

    @final
    def run(self, images: Images, stream: int = 0) -> Coefficients:
        """Compute the coefficients of a batch of faces; the result is the caller's own.

        Args:
            stream: 0 to `streams` - 1; one that is running must not be used again before it has returned.

        Raises:
            BackendError: the images do not fit `input_spec`, there is no such stream, or the runtime is closed or
                failed.
        """
        return self.begin(images, stream)()

    @final
    def begin(self, images: Images, stream: int = 0) -> Callable[[], Coefficients]:
        """Begin a batch; call the result, once, to wait for its coefficients. Otherwise as `run`.

        Only if the runtime `is_asynchronous` does this return before they are there; the images may then be changed,
        unless they lie in a `buffer`.
        """
        self._check(images, stream)
        with self._failures():
            wait = self._begin(self._taken(images), stream)

        def result() -> Coefficients:
            with self._failures():
                coefficients = wait()
            if coefficients.shape != (len(images), self.outputs) or coefficients.dtype != np.float32:
                raise BackendError(
                    f"{self.name} returned {coefficients.dtype} {coefficients.shape}; "
                    f"expected float32 ({len(images)}, {self.outputs}). Export the network again."
                )
            return coefficients

        return result

    @final
    def buffer(self, count: int, height: int, width: int, stream: int = 0) -> Pixels:
        """Memory for a batch (count, height, width, 3): what is in it is run on `stream` without another copy.

        It has no values yet, and is the stream's: fill it, run it, and keep it no longer than the stream is yours.

        Raises:
            BackendError: such a batch does not fit `input_spec`.
        """
        shape = count, height, width, 3
        self._check(np.empty(shape, np.uint8), stream)
        with self._failures():
            return self._buffer(shape, stream)

    @final
    def resident(self, images: Images, stream: int = 0) -> Callable[[], None]:
        """The network alone: each call of the result computes these images' coefficients, and waits for them.

        On a GPU the images are copied to it now, and the coefficients stay there; on the CPU nothing is copied anyway.
        It is valid until the stream is used otherwise.

        Raises:
            BackendError: as `run`, here and in each call.
        """
        self.run(images, stream)  # checks, allocates and warms up
        with self._failures():
            compute = self._resident(self._taken(images), stream)

        def call() -> None:
            with self._failures():
                compute()

        return call

    def _check(self, images: Images, stream: int) -> None:
        if self._closed:
            raise BackendError(f"this {self.name} runtime is closed; open a new one.")
        if not 0 <= stream < self._streams:
            raise BackendError(f"this {self.name} runtime has {self._streams} streams, counted from 0; got {stream}.")
        self._input_spec.check(images)

    def _taken(self, images: Images) -> Images:
        """Return the images as `_infer` takes them."""
        return planes_of(images) if images.dtype == np.uint8 and not self.takes_bytes else images

    @contextmanager
    def _failures(self) -> Generator[None]:
        """Turn any error into a BackendError; the libraries' exceptions have no common base."""
        try:
            yield
        except BackendError:
            raise
        except Exception as error:
            raise BackendError(f"{self.name} failed: {type(error).__name__}: {error}") from error

    @final
    def close(self) -> None:
        """Give back everything held; a second call does nothing."""
        if not self._closed:
            self._closed = True
            self._close()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    @abstractmethod
    def _open(self, path: Path, threads: int, streams: int) -> InputSpec: ...

    def _infer(self, images: Images, stream: int) -> Coefficients:
        return self._begin(images, stream)()

    def _begin(self, images: Images, stream: int) -> Callable[[], Coefficients]:
        coefficients = self._infer(images, stream)
        return lambda: coefficients

    def _resident(self, images: Images, stream: int) -> Callable[[], None]:
        def call() -> None:
            self._infer(images, stream)

        return call

    def _buffer(self, shape: tuple[int, ...], stream: int) -> Pixels:
        return np.empty(shape, np.uint8)

    @abstractmethod
    def _close(self) -> None: ...


def threads_per_stream(threads: int, streams: int) -> int:
    """Divide `threads` among streams, at least 1 each; 0 (the runtime's choice) only for one stream without a quota."""
    if threads == 0 and (streams > 1 or quota_binds()):  # runtimes do not know of quotas
        threads = usable_cores()
    return max(1, threads // streams) if threads else 0


def check_names(path: Path, inputs: Sequence[str], outputs: Sequence[str]) -> None:
    """Refuse a file that was not exported by LeanFace.

    Raises:
        ArtifactError: its inputs or outputs have other names.
    """
    if list(inputs) != [INPUT_NAME] or list(outputs) != [OUTPUT_NAME]:
        raise ArtifactError(
            f"{path} maps {list(inputs)} to {list(outputs)}; expected ['{INPUT_NAME}'] to "
            f"['{OUTPUT_NAME}']. Export it with `leanface stage export`."
        )


def _within(value: int, allowed: Range) -> bool:
    low, high = allowed
    return value >= low and (high is None or value <= high)


def _words(allowed: Range) -> str:
    low, high = allowed
    if high is None:
        return f"at least {low}"
    return str(low) if low == high else f"{low} to {high}"
