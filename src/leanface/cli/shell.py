"""`leanface completion`: the shell completes commands, options and choices."""

import argparse
from typing import Any

from leanface.cli.parser import MAINTAIN, Commands


def add_commands(commands: Commands) -> None:
    """Add `completion`."""
    parser = commands.add(
        "completion",
        MAINTAIN,
        "print a script that completes commands in your shell",
        'eval "$(leanface completion bash)"',
        _completion,
    )
    parser.add_argument("shell", choices=["bash", "tcsh", "zsh"])


def _completion(arguments: argparse.Namespace) -> None:
    import shtab

    from leanface import cli

    parser: Any = cli._parser()  # pyright: ignore[reportPrivateUsage]
    print(shtab.complete(parser, arguments.shell))
