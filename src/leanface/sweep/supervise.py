"""Run a command and stop it when its parent exits.

`python -m leanface.sweep.supervise PARENT STOP_FILE COMMAND...` stops the command when the process PARENT, which must
have started this one, has ended for any reason; when STOP_FILE appears, which also reaches trials on other machines;
and on SIGTERM. It imports nothing of LeanFace, because it starts before every trial.
"""

import contextlib
import fcntl
import os
import signal
import subprocess
import sys
import time
from collections.abc import Sequence
from pathlib import Path

RUNNING = Path(".cache/experiments-running.lock")
"""Held, shared, as long as an experiment runs."""

STOPPED = 130
"""Exit status of a command that was stopped, as of a shell's after Ctrl-C."""

STOP_SIGNALS = ((signal.SIGINT, 20.0), (signal.SIGTERM, 5.0), (signal.SIGKILL, 5.0))
"""How a command is stopped, and how many seconds it is given: at SIGINT DVC ends its stage and clears up."""

PATIENCE = sum(seconds for _, seconds in STOP_SIGNALS)

POLL_SECONDS = 0.2


def main(arguments: Sequence[str]) -> int:
    """Run it in a session of its own; returns its exit status, or `STOPPED`."""
    parent, stop, command = int(arguments[0]), Path(arguments[1]), arguments[2:]
    asked: list[int] = []
    signal.signal(signal.SIGTERM, lambda number, frame: asked.append(number))
    # A command that was started in the background, or by Ray, inherits SIGINT ignored or blocked.
    signal.signal(signal.SIGINT, signal.SIG_DFL)
    signal.pthread_sigmask(signal.SIG_SETMASK, ())
    RUNNING.parent.mkdir(parents=True, exist_ok=True)
    with RUNNING.open("a") as running:
        fcntl.flock(running, fcntl.LOCK_SH)
        process = subprocess.Popen(command, stdin=subprocess.DEVNULL, start_new_session=True)
        while process.poll() is None:
            if asked or os.getppid() != parent or stop.exists():
                _stop(process)
                return STOPPED
            time.sleep(POLL_SECONDS)
        _stop(process)  # what the command left behind
        return process.returncode if process.returncode >= 0 else 128 - process.returncode


def _stop(process: subprocess.Popen[bytes]) -> None:
    for number, seconds in STOP_SIGNALS:
        deadline = time.monotonic() + seconds
        if not _alive(process):
            return
        with contextlib.suppress(ProcessLookupError):
            os.killpg(process.pid, number)
        while _alive(process) and time.monotonic() < deadline:
            time.sleep(0.05)


def _alive(process: subprocess.Popen[bytes]) -> bool:
    """Tell whether anything of its group still runs."""
    process.poll()
    try:
        os.killpg(process.pid, 0)
    except (ProcessLookupError, PermissionError):
        return False
    return True


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
