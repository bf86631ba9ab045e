"""Real worker processes that are stopped, killed and too slow: every accepted photo has an answer."""

import multiprocessing
import os
import signal
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from multiprocessing.connection import Connection
from pathlib import Path

import pytest

from leanface.device import VISIBLE
from leanface.errors import BackendError
from leanface.serving.messages import Failed, Job
from leanface.serving.pool import BusyError, ClosedError, Watchers, WorkerPool
from leanface.serving.settings import Gpu, Settings
from leanface.serving.worker import work

WAIT_S = 60.0


@pytest.fixture(scope="module")
def restarts() -> list[str]:
    return []


@pytest.fixture(scope="module")
def pool(service_settings: Settings, restarts: list[str]) -> Iterator[WorkerPool]:
    limits = {"queue_max": 4, "batch_max": 2, "time_limit_s": 3.0, "batch_wait_ms": 0.0}
    pool = WorkerPool(service_settings.model_copy(update=limits), Watchers(restarted=restarts.append))
    pool.start()
    yield pool
    pool.close()


def until(condition, seconds: float = WAIT_S) -> None:
    end = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < end
        time.sleep(0.01)


def test_photos_are_answered_in_batches(pool: WorkerPool, photo: bytes) -> None:
    pool.wait_ready()
    futures = [pool.submit(Job(photo)) for _ in range(3)]
    answers = [future.result(WAIT_S) for future in futures]
    assert [answer.error for answer in answers] == [None] * 3
    assert max(answer.batch for answer in answers) <= 2
    assert "queue" in answers[0].steps_ms


def test_a_killed_worker_comes_back_and_its_photos_are_answered(
    pool: WorkerPool, photo: bytes, restarts: list[str]
) -> None:
    pool.wait_ready()
    (worker,) = pool.processes
    os.kill(worker, signal.SIGSTOP)  # so that it dies with photos in hand
    futures = [pool.submit(Job(photo)) for _ in range(4)]
    until(lambda: pool.waiting <= 2)
    os.kill(worker, signal.SIGKILL)
    assert [future.result(WAIT_S).error for future in futures] == [None] * 4
    assert worker not in pool.processes
    assert restarts == ["died"]


def test_an_idle_worker_that_dies_is_replaced_too(pool: WorkerPool, restarts: list[str]) -> None:
    pool.wait_ready()
    (worker,) = pool.processes
    before = len(restarts)
    os.kill(worker, signal.SIGKILL)
    until(lambda: len(restarts) > before)
    until(lambda: pool.ready == {0} and pool.processes and pool.processes != [worker])


def test_a_full_queue_refuses_and_recovers(pool: WorkerPool, photo: bytes) -> None:
    pool.wait_ready()
    (worker,) = pool.processes
    os.kill(worker, signal.SIGSTOP)
    taken = [pool.submit(Job(photo))]
    until(lambda: pool.waiting == 0)
    waiting = [pool.submit(Job(photo)) for _ in range(4)]
    with pytest.raises(BusyError):
        pool.submit(Job(photo))
    assert waiting[0].cancel()  # whoever gives up makes room
    os.kill(worker, signal.SIGCONT)
    assert [future.result(WAIT_S).error for future in taken + waiting[1:]] == [None] * 4
    until(lambda: pool.waiting == 0)
    assert pool.submit(Job(photo)).result(WAIT_S).error is None


def test_a_worker_that_takes_too_long_is_replaced(pool: WorkerPool, photo: bytes, restarts: list[str]) -> None:
    """As a photo on which a decoder never ends would do."""
    pool.wait_ready()
    (worker,) = pool.processes
    os.kill(worker, signal.SIGSTOP)
    assert pool.submit(Job(photo)).result(WAIT_S).error == "time_limit"
    assert restarts[-1] == "time_limit"
    assert pool.submit(Job(photo)).result(WAIT_S).error is None
    assert worker not in pool.processes


def test_closing_answers_what_was_accepted(service_settings: Settings, photo: bytes) -> None:
    pool = WorkerPool(service_settings.model_copy(update={"batch_max": 1}))
    pool.start()
    futures = [pool.submit(Job(photo)) for _ in range(5)]
    pool.wait_ready()
    pool.close(WAIT_S)
    assert [future.result(0).error for future in futures] == [None] * 5
    assert pool.processes == []
    with pytest.raises(ClosedError):
        pool.submit(Job(photo))


def test_closing_does_not_wait_for_workers_that_start(
    service_settings: Settings, caplog: pytest.LogCaptureFixture
) -> None:
    pool = WorkerPool(service_settings)
    pool.start()
    until(lambda: pool.processes)
    with ThreadPoolExecutor(1) as threads:
        waiting = threads.submit(pool.wait_ready)
        pool.close(WAIT_S)
        with pytest.raises(ClosedError):
            waiting.result(WAIT_S)
    assert pool.processes == []
    assert "did not start" not in caplog.text


def test_closing_before_the_end_says_so(service_settings: Settings, photo: bytes) -> None:
    pool = WorkerPool(service_settings)
    future = pool.submit(Job(photo))  # never started
    pool.close(0.0)
    assert future.result(0).error == "not_ready"


def test_workers_that_cannot_start_say_why(service_settings: Settings, tmp_path) -> None:
    pool = WorkerPool(service_settings.model_copy(update={"model": tmp_path / "no.onnx"}))
    pool.start()
    with pytest.raises(BackendError, match=r"no\.onnx is missing"):
        pool.wait_ready(WAIT_S)
    pool.close(1.0)


def _work_and_tell(connection: Connection, settings: Settings, gpu: Gpu) -> None:
    ours, theirs = multiprocessing.Pipe()
    work(theirs, settings, 1, gpu)
    connection.send((os.environ[VISIBLE], ours.recv()))


def test_a_worker_sees_its_gpu_alone(tmp_path: Path) -> None:
    context = multiprocessing.get_context("spawn")
    ours, theirs = context.Pipe()
    settings = Settings(model=tmp_path / "no.onnx")  # it ends at once
    process = context.Process(target=_work_and_tell, args=(theirs, settings, Gpu(1, "GPU-b")))
    process.start()
    theirs.close()
    visible, reply = ours.recv()
    assert visible == "GPU-b"
    assert isinstance(reply, Failed)
    process.join()
