"""Who measures waits until no other stage runs, and others wait until it is done."""

import threading
from pathlib import Path

import pytest

from leanface.turnstile import TURNSTILE, passed


def _enters(stage: str) -> tuple[threading.Thread, threading.Event]:
    inside = threading.Event()

    def run() -> None:
        with passed(stage):
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
    monkeypatch.setenv(TURNSTILE, str(tmp_path / "machine"))
    with passed(first):
        thread, inside = _enters(second)
        assert inside.wait(5 if together else 0.3) == together
    thread.join(5)
    assert inside.is_set()


def test_without_a_turnstile_nobody_waits(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv(TURNSTILE, raising=False)
    with passed("benchmark"):
        _, inside = _enters("benchmark")
        assert inside.wait(5)
