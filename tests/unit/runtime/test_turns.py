"""Captures run alone; other runs side by side."""

import threading

from leanface.runtime.onnxruntime_ import Turns

WAIT_S = 10.0


def test_runs_go_side_by_side_and_a_capture_waits_for_them():
    turns, log = Turns(), []
    inside, leave = threading.Barrier(3), threading.Event()

    def run() -> None:
        with turns.run():
            inside.wait(WAIT_S)  # both are in at the same time, or this breaks
            assert leave.wait(WAIT_S)
            log.append("run")

    def capture() -> None:
        with turns.capture():
            log.append("capture")

    threads = [threading.Thread(target=run) for _ in range(2)]
    for thread in threads:
        thread.start()
    inside.wait(WAIT_S)
    waiting = threading.Thread(target=capture)
    waiting.start()
    waiting.join(0.05)
    assert log == []
    leave.set()
    for thread in (*threads, waiting):
        thread.join(WAIT_S)
    assert log == ["run", "run", "capture"]


def test_nothing_runs_during_a_capture_and_a_failed_one_lets_the_others_go_on():
    turns, log = Turns(), []

    def run() -> None:
        with turns.run():
            log.append("run")

    thread = threading.Thread(target=run)
    try:
        with turns.capture():
            thread.start()
            thread.join(0.05)
            assert log == []
            raise ValueError("the capture failed")
    except ValueError:
        pass
    thread.join(WAIT_S)
    assert log == ["run"]
