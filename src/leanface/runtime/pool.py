"""Many callers, one network: batches that run at the same time, in the order in which they came."""

import threading
from collections import deque
from collections.abc import Iterable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from types import TracebackType
from typing import Self

from leanface.errors import BackendError
from leanface.runtime.base import Coefficients, Images, Runtime


class Pool:
    """Runs every stream of a runtime in a thread of its own, until `close`. Any thread may submit.

    The threads only wait for the device or for the runtime's own threads, which all release Python's lock. OpenVINO's
    AsyncInferQueue would do the same for one runtime alone, without futures or order.
    """

    def __init__(self, runtime: Runtime, waiting: int | None = None) -> None:
        """Use `runtime` alone from now on; it stays the caller's to close, after the pool.

        Args:
            waiting: batches that are accepted beyond those that run; the default is one per stream.
        """
        self._runtime = runtime
        self._room = runtime.streams + (runtime.streams if waiting is None else waiting)
        self._slots = threading.Semaphore(self._room)
        # A thread keeps its stream: onnxruntime's CUDA graphs belong to the thread that captured them.
        self._own = threading.local()
        streams = iter(range(runtime.streams))
        self._executor = ThreadPoolExecutor(
            runtime.streams, f"{runtime.name}-stream", initializer=lambda: setattr(self._own, "stream", next(streams))
        )

    @property
    def room(self) -> int:
        """How many batches are accepted at a time; `submit` waits while there are so many."""
        return self._room

    def submit(self, images: Images) -> "Future[Coefficients]":
        """Accept a batch as soon as there is room for it; do not change it before its result is there.

        Returns:
            the coefficients to come, or this batch's own error (see `Runtime.run`), which concerns no other.

        Raises:
            BackendError: the pool is closed.
        """
        self._slots.acquire()
        try:
            future = self._executor.submit(self._run, images)
        except RuntimeError:
            self._slots.release()
            raise BackendError(f"this pool of {self._runtime.name} is closed; open a new one.") from None
        future.add_done_callback(lambda _: self._slots.release())
        return future

    def map(self, batches: Iterable[Images]) -> Iterator[Coefficients]:
        """The coefficients of each batch, in order; at most `room` batches are read ahead.

        Raises:
            BackendError: of the first batch that fails; those after it are cancelled.
        """
        pending: deque[Future[Coefficients]] = deque()
        try:
            for images in batches:
                if len(pending) == self._room:
                    yield pending.popleft().result()
                pending.append(self.submit(images))
            while pending:
                yield pending.popleft().result()
        finally:
            for future in pending:
                future.cancel()

    def close(self, cancel: bool = False) -> None:
        """Accept nothing more, and return when all threads have ended; a second call does nothing.

        Args:
            cancel: drop the batches that have not started, instead of running them: their futures are cancelled.
        """
        self._executor.shutdown(wait=True, cancel_futures=cancel)

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close(cancel=error is not None)

    def _run(self, images: Images) -> Coefficients:
        return self._runtime.run(images, self._own.stream)
