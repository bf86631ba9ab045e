"""The command line: a file per group of commands, each parser beside its handler. Heavy imports wait for a handler."""

import importlib
import logging
import os
import sys
from collections.abc import Callable, Sequence

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
    try:
        try:
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
        return 130  # as a shell counts SIGINT
    return 0


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
