"""The command line: a file per group of commands, each parser beside its handler. Heavy imports wait for a handler."""

import importlib
import logging
import os
import signal
import sys
import threading
from collections.abc import Callable, Generator, Sequence
from contextlib import contextmanager
from types import FrameType
from typing import Any

from leanface.cli import auto, bench, compress, demo, export, pipeline, profile, reconstruct, serve, shell, sweep
from leanface.cli.parser import Parser, command_parser
from leanface.environment import enter_project, prepare_process
from leanface.errors import LeanFaceError, reason
from leanface.extras import missing_message


def main(argv: Sequence[str] | None = None) -> int:
    """Run one `leanface` command and return its exit status."""
    return guarded(_run, list(sys.argv[1:] if argv is None else argv))


def guarded(command: Callable[[list[str]], None], argv: list[str]) -> int:
    """Run a command and return its exit status; bugs alone print a traceback."""
    logging.basicConfig(level=logging.INFO, format="%(message)s")
    prepare_process()
    stops = [signal.SIGINT]
    try:
        try:
            with _stopped_by(stops):
                command(argv)
        finally:
            sys.stdout.flush()  # here, where a closed pipe can be caught: not when Python ends
    except BrokenPipeError:
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())  # for what is still to be flushed
        return 141  # as a shell counts SIGPIPE
    except LeanFaceError as error:
        print(f"{type(error).__name__}: {error}", file=sys.stderr)
        return error.exit_status
    except ModuleNotFoundError as error:
        if (message := missing_message(error.name, argv[0] if argv else None)) is None:
            raise
        print(message, file=sys.stderr)
        return 1
    except (OSError, MemoryError) as error:  # of what the user named, or of the machine
        print(reason(error), file=sys.stderr)
        return 1
    except KeyboardInterrupt:
        print("\nstopped.", file=sys.stderr)  # below "^C", or a progress bar
        return 128 + stops[-1]  # as a shell counts signals
    return 0


@contextmanager
def _stopped_by(stops: list[signal.Signals]) -> Generator[None]:
    """Let SIGTERM and a closed terminal end a command as Ctrl-C does: what is done is kept, and nothing half-written.

    Args:
        stops: the signals that come are added.
    """
    process = os.getpid()

    def stop(number: int, frame: FrameType | None) -> None:
        if os.getpid() != process:  # a forked child, which has nothing to keep
            os._exit(128 + number)
        stops.append(signal.Signals(number))
        raise KeyboardInterrupt

    before: dict[int, Any] = {}
    if threading.current_thread() is threading.main_thread():
        numbers = [signal.Signals[name] for name in ("SIGTERM", "SIGHUP") if name in signal.Signals.__members__]
        ours = [number for number in numbers if signal.getsignal(number) == signal.SIG_DFL]  # not below `nohup`
        before = {number: signal.signal(number, stop) for number in ours}
    try:
        yield
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)


def _run(argv: list[str]) -> None:
    if argv[:1] == ["sweep"]:
        enter_project()
        # Hydra parses the rest. By name: the sweep is this module's equal, and needs Hydra and DVC.
        importlib.import_module("leanface.sweep.app").main(argv[1:])
        return
    arguments = _parser().parse_args(argv)
    arguments.run(arguments)


def _parser() -> Parser:
    parser, commands = command_parser()
    for group in (reconstruct, bench, profile, demo, serve, export, auto, compress, sweep, pipeline, shell):
        group.add_commands(commands)
    return parser
