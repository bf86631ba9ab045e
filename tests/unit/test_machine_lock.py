"""A stage that measures time runs alone; all others run together."""

import threading
from pathlib import Path

import pytest

from leanface.machine_lock import MACHINE_LOCK, hold_machine


def _enters(stage: str) -> tuple[threading.Thread, threading.Event]:
    inside = threading.Event()

    def run() -> None:
        with hold_machine(stage):
            inside.set()

    thread = threading.Thread(target=run, daemon=True)
    thread.start()
    return thread, inside


@pytest.mark.parametrize(
    ("first", "second", "together"),
    [("distill", "prune", True), ("distill", "benchmark", False), ("benchmark", "distill", False)],
)
def test_only_measuring_stages_are_alone(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, first: str, second: str, together: bool
) -> None:
    monkeypatch.setenv(MACHINE_LOCK, str(tmp_path / "machine"))
    with hold_machine(first):
        thread, inside = _enters(second)
        assert inside.wait(5 if together else 0.3) == together
    thread.join(5)
    assert inside.is_set()


def test_nobody_waits_where_no_lock_is_set(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv(MACHINE_LOCK, raising=False)
    with hold_machine("benchmark"):
        _, inside = _enters("benchmark")
        assert inside.wait(5)
