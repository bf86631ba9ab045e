"""Batches that run at the same time: of many callers (`Pool`), or of one (`pipelined`)."""

import threading
from collections import deque
from collections.abc import Callable, Generator, Iterable
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import suppress
from queue import Empty, SimpleQueue
from typing import Self

from leanface.errors import BackendError
from leanface.runtime.base import Coefficients, Images, Runtime


class Pool:
    """Keeps every stream of a runtime busy until `close`. Any thread may submit.

    Each stream has a thread, which only waits for the device or for the runtime's own threads: all of them release
    Python's lock. Where the runtime `is_asynchronous`, one thread begins all batches instead: on a GPU eight threads
    that take Python's lock from each other launch fewer graphs than one. OpenVINO's AsyncInferQueue would do the same
    for one runtime alone, without futures or order.
    """

    def __init__(self, runtime: Runtime, waiting: int | None = None) -> None:
        """Use `runtime` alone from now on; it stays the caller's to close, after the pool.

        Args:
            waiting: batches that are accepted beyond those that run; the default is one per stream.
        """
        self._runtime = runtime
        self._room = runtime.streams + (runtime.streams if waiting is None else waiting)
        self._slots = threading.Semaphore(self._room)
        self._workers = _Launcher(runtime) if runtime.is_asynchronous else _Threads(runtime)

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
            future = self._workers.submit(images)
        except RuntimeError:
            self._slots.release()
            raise BackendError(f"this pool of {self._runtime.name} is closed; open a new one.") from None
        future.add_done_callback(lambda _: self._slots.release())
        return future

    def close(self, cancel: bool = False) -> None:
        """Accept nothing more, and return when all threads have ended; a second call does nothing.

        Args:
            cancel: drop the batches that have not started, instead of running them: their futures are cancelled.
        """
        self._workers.close(cancel)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, kind: type[BaseException] | None, *_: object) -> None:
        self.close(cancel=kind is not None)


def pipelined(runtime: Runtime, batches: Iterable[Images]) -> Generator[Coefficients]:
    """Yield the coefficients of each batch, in order, keeping all streams of a runtime busy.

    Use `runtime` for nothing else meanwhile. Where it `is_asynchronous`, the caller's thread begins and collects all
    batches itself: on a GPU, handing each batch to another thread takes longer than a small batch.

    Raises:
        BackendError: of the first batch that fails; those after it are dropped.
    """
    if runtime.is_asynchronous:
        return _in_turns(runtime, batches)
    return _by_threads(runtime, batches)


def _in_turns(runtime: Runtime, batches: Iterable[Images]) -> Generator[Coefficients]:
    begun: deque[Callable[[], Coefficients]] = deque()
    try:
        for number, images in enumerate(batches):
            done = begun.popleft()() if len(begun) == runtime.streams else None
            begun.append(_begin(runtime, images, number % runtime.streams))
            if done is not None:
                yield done
        while begun:
            yield begun.popleft()()
    finally:
        for wait in begun:  # their streams have to be free for what comes next
            with suppress(BackendError):
                wait()


def _begin(runtime: Runtime, images: Images, stream: int) -> Callable[[], Coefficients]:
    """Begin a batch; if that fails, the result says so, in its turn."""
    try:
        return runtime.begin(images, stream)
    except BackendError as error:
        failure = error

    def fail() -> Coefficients:
        raise failure

    return fail


def _by_threads(runtime: Runtime, batches: Iterable[Images]) -> Generator[Coefficients]:
    with Pool(runtime) as pool:
        pending: deque[Future[Coefficients]] = deque()
        for images in batches:
            if len(pending) == pool.room:
                yield pending.popleft().result()
            pending.append(pool.submit(images))
        while pending:
            yield pending.popleft().result()


class _Threads:
    """A thread for each stream."""

    def __init__(self, runtime: Runtime) -> None:
        self._runtime = runtime
        # A thread keeps its stream: onnxruntime's CUDA graphs belong to the thread that captured them.
        self._own = threading.local()
        streams = iter(range(runtime.streams))
        self._executor = ThreadPoolExecutor(
            runtime.streams, f"{runtime.name}-stream", initializer=lambda: setattr(self._own, "stream", next(streams))
        )

    def submit(self, images: Images) -> "Future[Coefficients]":
        """Raises RuntimeError after `close`."""
        return self._executor.submit(self._run, images)

    def close(self, cancel: bool) -> None:
        self._executor.shutdown(wait=True, cancel_futures=cancel)

    def _run(self, images: Images) -> Coefficients:
        return self._runtime.run(images, self._own.stream)


class _Launcher:
    """A thread that begins batches, each on the stream that was free first, and one that waits for them in order."""

    def __init__(self, runtime: Runtime) -> None:
        self._runtime = runtime
        self._closing = threading.Lock()
        self._closed = False
        self._waiting: SimpleQueue[tuple[Future[Coefficients], Images] | None] = SimpleQueue()
        self._begun: SimpleQueue[tuple[Future[Coefficients], int, Callable[[], Coefficients]] | None] = SimpleQueue()
        self._free: SimpleQueue[int] = SimpleQueue()
        for stream in range(runtime.streams):
            self._free.put(stream)
        self._threads = [
            threading.Thread(target=target, name=f"{runtime.name}-stream-{name}", daemon=True)
            for name, target in (("launcher", self._launch), ("collector", self._collect))
        ]
        for thread in self._threads:
            thread.start()

    def submit(self, images: Images) -> "Future[Coefficients]":
        """Raises RuntimeError after `close`."""
        future: Future[Coefficients] = Future()
        with self._closing:
            if self._closed:
                raise RuntimeError("closed")
            self._waiting.put((future, images))
        return future

    def close(self, cancel: bool) -> None:
        with self._closing:
            if not self._closed:
                self._closed = True
                if cancel:
                    with suppress(Empty):
                        while (item := self._waiting.get_nowait()) is not None:
                            item[0].cancel()
                self._waiting.put(None)
        for thread in self._threads:
            thread.join()

    def _launch(self) -> None:
        while True:
            stream = self._free.get()  # first: what has no stream yet can still be cancelled
            if (item := self._waiting.get()) is None:
                break
            future, images = item
            if not future.set_running_or_notify_cancel():
                self._free.put(stream)
                continue
            try:
                wait = self._runtime.begin(images, stream)
            except BaseException as error:
                self._free.put(stream)
                future.set_exception(error)
            else:
                self._begun.put((future, stream, wait))
        self._begun.put(None)

    def _collect(self) -> None:
        while (item := self._begun.get()) is not None:
            future, stream, wait = item
            try:
                coefficients = wait()
            except BaseException as error:
                self._free.put(stream)
                future.set_exception(error)
            else:
                self._free.put(stream)
                future.set_result(coefficients)
