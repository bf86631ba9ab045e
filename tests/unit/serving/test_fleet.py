"""Real worker processes that are stopped, killed and too slow: every accepted photo has an answer."""

import os
import signal
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor

import pytest

from leanface.errors import BackendError
from leanface.serving.fleet import BusyError, ClosedError, Fleet, Watchers
from leanface.serving.messages import Job
from leanface.serving.settings import Settings

WAIT_S = 60.0


@pytest.fixture(scope="module")
def restarts() -> list[str]:
    return []


@pytest.fixture(scope="module")
def fleet(settings: Settings, restarts: list[str]) -> Iterator[Fleet]:
    limits = {"queue_max": 4, "batch_max": 2, "time_limit_s": 3.0, "batch_wait_ms": 0.0}
    fleet = Fleet(settings.model_copy(update=limits), Watchers(restarted=restarts.append))
    fleet.start()
    yield fleet
    fleet.close()


def until(condition, seconds: float = WAIT_S) -> None:
    end = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < end
        time.sleep(0.01)


def test_photos_are_answered_in_batches(fleet: Fleet, photo: bytes) -> None:
    fleet.wait_ready()
    futures = [fleet.submit(Job(photo)) for _ in range(3)]
    answers = [future.result(WAIT_S) for future in futures]
    assert [answer.error for answer in answers] == [None] * 3
    assert max(answer.batch for answer in answers) <= 2
    assert "queue" in answers[0].steps_ms


def test_a_killed_worker_comes_back_and_its_photos_are_answered(
    fleet: Fleet, photo: bytes, restarts: list[str]
) -> None:
    fleet.wait_ready()
    (worker,) = fleet.processes
    os.kill(worker, signal.SIGSTOP)  # so that it dies with photos in hand
    futures = [fleet.submit(Job(photo)) for _ in range(4)]
    until(lambda: fleet.waiting <= 2)
    os.kill(worker, signal.SIGKILL)
    assert [future.result(WAIT_S).error for future in futures] == [None] * 4
    assert worker not in fleet.processes
    assert restarts == ["died"]


def test_an_idle_worker_that_dies_is_replaced_too(fleet: Fleet, restarts: list[str]) -> None:
    fleet.wait_ready()
    (worker,) = fleet.processes
    before = len(restarts)
    os.kill(worker, signal.SIGKILL)
    until(lambda: len(restarts) > before)
    until(lambda: fleet.ready == 1 and fleet.processes and fleet.processes != [worker])


def test_a_full_queue_refuses_and_recovers(fleet: Fleet, photo: bytes) -> None:
    fleet.wait_ready()
    (worker,) = fleet.processes
    os.kill(worker, signal.SIGSTOP)
    taken = [fleet.submit(Job(photo))]
    until(lambda: fleet.waiting == 0)
    waiting = [fleet.submit(Job(photo)) for _ in range(4)]
    with pytest.raises(BusyError):
        fleet.submit(Job(photo))
    assert waiting[0].cancel()  # whoever gives up makes room
    os.kill(worker, signal.SIGCONT)
    assert [future.result(WAIT_S).error for future in taken + waiting[1:]] == [None] * 4
    until(lambda: fleet.waiting == 0)
    assert fleet.submit(Job(photo)).result(WAIT_S).error is None


def test_a_worker_that_takes_too_long_is_replaced(fleet: Fleet, photo: bytes, restarts: list[str]) -> None:
    """As a photo on which a decoder never ends would do."""
    fleet.wait_ready()
    (worker,) = fleet.processes
    os.kill(worker, signal.SIGSTOP)
    assert fleet.submit(Job(photo)).result(WAIT_S).error == "time_limit"
    assert restarts[-1] == "time_limit"
    assert fleet.submit(Job(photo)).result(WAIT_S).error is None
    assert worker not in fleet.processes


def test_closing_answers_what_was_accepted(settings: Settings, photo: bytes) -> None:
    fleet = Fleet(settings.model_copy(update={"batch_max": 1}))
    fleet.start()
    futures = [fleet.submit(Job(photo)) for _ in range(5)]
    fleet.wait_ready()
    fleet.close(WAIT_S)
    assert [future.result(0).error for future in futures] == [None] * 5
    assert fleet.processes == []
    with pytest.raises(ClosedError):
        fleet.submit(Job(photo))


def test_closing_does_not_wait_for_workers_that_start(settings: Settings, caplog: pytest.LogCaptureFixture) -> None:
    fleet = Fleet(settings)
    fleet.start()
    until(lambda: fleet.processes)
    with ThreadPoolExecutor(1) as threads:
        waiting = threads.submit(fleet.wait_ready)
        fleet.close(WAIT_S)
        with pytest.raises(ClosedError):
            waiting.result(WAIT_S)
    assert fleet.processes == []
    assert "did not start" not in caplog.text


def test_closing_before_the_end_says_so(settings: Settings, photo: bytes) -> None:
    fleet = Fleet(settings)
    future = fleet.submit(Job(photo))  # never started
    fleet.close(0.0)
    assert future.result(0).error == "not_ready"


def test_workers_that_cannot_start_say_why(settings: Settings, tmp_path) -> None:
    fleet = Fleet(settings.model_copy(update={"model": tmp_path / "no.onnx"}))
    fleet.start()
    with pytest.raises(BackendError, match=r"no\.onnx is missing"):
        fleet.wait_ready(WAIT_S)
    fleet.close(1.0)
