"""Worker processes behind one queue: batches, limits, and replacements for those that die.

Each worker has a thread here that takes waiting photos, sends them, and waits for their answers. When a worker dies, or
takes too long for the next answer, the photos of its batch that have none are read again, each alone, so that the one
at fault takes no other along; it gets an error if it does so a second time. So every accepted photo has an answer.
"""

import contextlib
import itertools
import logging
import multiprocessing
import threading
import time
from collections import deque
from collections.abc import Callable
from concurrent.futures import Future
from dataclasses import dataclass, field, replace
from multiprocessing.connection import Connection
from multiprocessing.process import BaseProcess

from leanface.device import usable_cores
from leanface.errors import BackendError
from leanface.serving.choice import Choice
from leanface.serving.messages import Answer, Answered, Failed, Job, Ready
from leanface.serving.settings import Settings
from leanface.serving.worker import work

logger = logging.getLogger(__name__)

ATTEMPTS = 2
START_SECONDS = 120.0
PATIENCE_SECONDS = 0.5
"""How soon the death of an idle worker is noticed."""

PAUSE_SECONDS = (0.0, 1.0, 2.0, 5.0, 10.0)
"""Before a worker that has answered nothing is replaced for the first, second, ... time."""


class BusyError(Exception):
    """The queue is full."""


class ClosedError(Exception):
    """No more jobs are accepted."""


@dataclass(eq=False)
class _Waiting:
    job: Job
    since: float
    future: "Future[Answer]" = field(default_factory=Future[Answer])
    attempts: int = 0


@dataclass(frozen=True)
class Watchers:
    """Called from the workers' threads."""

    restarted: Callable[[str], None] = lambda reason: None
    memory: Callable[[int, int], None] = lambda worker, memory_bytes: None


class WorkerPool:
    """Reads photos in worker processes, from `start` until `close`. Any thread may submit."""

    def __init__(self, settings: Settings, watchers: Watchers | None = None) -> None:
        self._settings = settings
        self._watchers = watchers or Watchers()
        self._choice = None if settings.p99_ms is None else Choice(settings.p99_ms)
        self._queue: deque[_Waiting] = deque()
        self._change = threading.Condition()
        self._closing = False
        self._ready: dict[int, Ready] = {}
        self._processes: dict[int, BaseProcess] = {}
        self._failure: str | None = None
        self._threads = [
            threading.Thread(target=self._run, args=(index,), name=f"worker-{index}", daemon=True)
            for index in range(len(settings.places))
        ]

    def start(self) -> None:
        """Start all workers; returns at once."""
        for thread in self._threads:
            thread.start()

    def wait_ready(self, seconds: float = START_SECONDS) -> Ready:
        """Wait for the first worker.

        Raises:
            BackendError: none can start, or none did in time.
            ClosedError: `close` was called meanwhile.
        """
        with self._change:
            self._change.wait_for(lambda: self._ready or self._failure or self._closing, seconds)
            if self._ready:
                return next(iter(self._ready.values()))
            if self._closing:
                raise ClosedError
        raise BackendError(f"no worker started: {self._failure or f'not within {seconds:.0f} s'}")

    @property
    def ready(self) -> set[int]:
        """Number the workers that can take photos, from 0."""
        return set(self._ready)

    @property
    def waiting(self) -> int:
        """Count the photos that wait."""
        return len(self._queue)

    @property
    def processes(self) -> list[int]:
        """List the process ids of the workers that are alive."""
        return [process.pid for process in list(self._processes.values()) if process.pid and process.is_alive()]

    def submit(self, job: Job) -> "Future[Answer]":
        """Accept a photo. A future that is cancelled before its photo's turn frees its place.

        Raises:
            BusyError: the queue is full.
            ClosedError: `close` was called.
        """
        with self._change:
            if self._closing:
                raise ClosedError
            if len(self._queue) >= self._settings.queue_max:
                raise BusyError
            waiting = _Waiting(job, time.monotonic())
            self._queue.append(waiting)
            self._change.notify()
        return waiting.future

    def close(self, seconds: float = 10.0) -> None:
        """Accept nothing more, answer what was accepted, end the workers; what is not done in time gets an error."""
        with self._change:
            self._closing = True
            self._change.notify_all()
            # Nobody waits for workers that only start.
            processes = [] if self._queue else list(self._processes.items())
            starting = [process for index, process in processes if index not in self._ready]
        for process in starting:
            with contextlib.suppress(ValueError):  # it has ended by itself
                process.kill()
        until = time.monotonic() + seconds
        for thread in self._threads:
            if thread.ident is not None:
                thread.join(max(0.0, until - time.monotonic()))
        for process in list(self._processes.values()):
            process.kill()
        with self._change:
            left, self._queue = list(self._queue), deque()
        for waiting in left:
            _answer(waiting, Answer(error="not_ready", detail="the service was stopped."))

    def _run(self, index: int) -> None:
        """Keep one worker running: a process, and after its death the next one."""
        failures = itertools.count()
        while self._queue or not self._closing:
            process, connection = self._spawn(index)
            answered = False
            try:
                answered = self._serve(index, process, connection)
            except Exception:
                logger.exception("worker %d's thread failed", index)
            finally:
                with self._change:
                    self._ready.pop(index, None)
                connection.close()  # an idle worker ends by itself
                process.join(1.0)
                if process.is_alive():
                    process.kill()
                    process.join()
                process.close()
                self._processes.pop(index, None)
            if answered:
                failures = itertools.count()
            with self._change:
                self._change.wait_for(lambda: self._closing, PAUSE_SECONDS[min(next(failures), len(PAUSE_SECONDS) - 1)])

    def _spawn(self, index: int) -> tuple[BaseProcess, Connection]:
        context = multiprocessing.get_context("spawn")  # forking a process with threads is not safe
        ours, theirs = context.Pipe()
        places = self._settings.places
        threads = self._settings.threads or max(1, usable_cores() // len(places))
        process = context.Process(
            target=work, args=(theirs, self._settings, threads, places[index]), name=f"leanface-{index}", daemon=True
        )
        process.start()
        self._processes[index] = process
        theirs.close()  # so that its end is seen when the process ends
        return process, ours

    def _serve(self, index: int, process: BaseProcess, connection: Connection) -> bool:
        """Hand out batches until the worker is lost or the pool closes; say whether any was answered."""
        first = self._receive(connection, START_SECONDS)
        if not isinstance(first, Ready):
            if self._closing:
                return False
            reason = first.reason if isinstance(first, Failed) else "a worker ended while it started"
            logger.error("worker %d did not start: %s", index, reason)
            with self._change:
                self._failure = reason
                self._change.notify_all()
            self._watchers.restarted("start")
            return False
        with self._change:
            self._failure = None
            self._ready[index] = first
            self._change.notify_all()
        answered = False
        while True:
            batch = self._take(process)
            if batch is None:
                return answered
            if not batch:  # it died while it had nothing to do
                logger.warning("worker %d died, exit code %s", index, process.exitcode)
                self._watchers.restarted("died")
                return answered
            unanswered = deque(batch)
            sent = latest = time.monotonic()
            better = self._prefers_better(batch, sent)
            with contextlib.suppress(OSError):
                connection.send(([waiting.job for waiting in batch], better))
            while unanswered and isinstance(reply := self._receive(connection, self._settings.time_limit_s), Answered):
                answered, latest = True, time.monotonic()
                self._watchers.memory(index, reply.memory_bytes)
                waiting = unanswered.popleft()
                waited_ms = 1000 * (sent - waiting.since)
                _answer(waiting, replace(reply.answer, steps_ms={"queue": waited_ms, **reply.answer.steps_ms}))
            if not unanswered:
                self._learn(batch, better, sent, latest)
                continue
            late = time.monotonic() - latest >= self._settings.time_limit_s
            logger.warning("worker %d %s", index, "took too long" if late else f"died, exit code {process.exitcode}")
            self._watchers.restarted("time_limit" if late else "died")
            process.kill()
            self._retry(list(unanswered), "time_limit" if late else "worker_died")
            return answered

    def _prefers_better(self, batch: list[_Waiting], now: float) -> bool:
        """Tell whether the better network is to read a batch; one with a photo that failed before gets the faster."""
        if self._choice is None or batch[0].attempts:
            return False
        with self._change:
            return self._choice.better(1000 * (now - batch[0].since), len(batch), len(self._queue))

    def _learn(self, batch: list[_Waiting], better: bool, sent: float, answered: float) -> None:
        """Let later choices know how long a batch took; as if all of it was answered with its last photo."""
        if self._choice is not None:
            with self._change:
                self._choice.took(better, 1000 * (answered - sent))
                for waiting in batch:
                    self._choice.answered(1000 * (answered - waiting.since))

    def _receive(self, connection: Connection, seconds: float) -> object:
        """Wait for a message; None if none comes in time, or ever."""
        try:
            return connection.recv() if connection.poll(seconds) else None
        except (EOFError, OSError):
            return None

    def _take(self, process: BaseProcess) -> list[_Waiting] | None:
        """Take the next batch; [] if the worker has died meanwhile, None if the pool closes."""
        with self._change:
            while process.is_alive():
                batch = self._pop(self._settings.batch_max)
                if batch:
                    return self._fill(batch)
                if self._closing:
                    return None
                self._change.wait(PATIENCE_SECONDS)
        return []

    def _fill(self, batch: list[_Waiting]) -> list[_Waiting]:
        """Wait a little for more photos, unless the batch holds one that failed before."""
        until = time.monotonic() + self._settings.batch_wait_ms / 1000
        while not batch[0].attempts and (room := self._settings.batch_max - len(batch)):
            batch += self._pop(room, fresh=True)
            left = until - time.monotonic()
            if left <= 0 or not self._change.wait_for(lambda: self._queue, left) or self._queue[0].attempts:
                break
        return batch

    def _pop(self, room: int, fresh: bool = False) -> list[_Waiting]:
        """Take up to `room` photos that still want an answer; one that failed before goes alone."""
        batch: list[_Waiting] = []
        while self._queue and len(batch) < room:
            retried = self._queue[0].attempts > 0
            if retried and (batch or fresh):
                break
            waiting = self._queue.popleft()
            # The future of one that failed before is running already.
            if retried or waiting.future.set_running_or_notify_cancel():
                batch.append(waiting)
            if retried:
                break
        return batch

    def _retry(self, batch: list[_Waiting], kind: str) -> None:
        again: list[_Waiting] = []
        for waiting in batch:
            # A photo that takes too long alone would do so again.
            waiting.attempts += ATTEMPTS if kind == "time_limit" and len(batch) == 1 else 1
            if waiting.attempts < ATTEMPTS:
                again.append(waiting)
            else:
                _answer(waiting, Answer(error=kind, detail="the photo could not be read; send another one."))
        with self._change:
            self._queue.extendleft(reversed(again))
            self._change.notify_all()


def _answer(waiting: _Waiting, answer: Answer) -> None:
    with contextlib.suppress(Exception):  # whoever asked has given up
        waiting.future.set_result(answer)
