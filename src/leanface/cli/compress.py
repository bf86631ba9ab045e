"""`leanface compress`: a network of one's own through the whole pipeline, with what conf/ says for the rest."""

import argparse
from pathlib import Path

from leanface.cli.parser import EXPERIMENT, Commands
from leanface.environment import enter_project


def add_commands(commands: Commands) -> None:
    """Add `compress`."""
    parser = commands.add(
        "compress",
        EXPERIMENT,
        "prune, distill, quantize and prove a network, of any task",
        "leanface compress digits\nleanface compress examples/own_network/gratings.py:Gratings",
        _compress,
    )
    parser.add_argument(
        "network", metavar="TASK|BUNDLE", help="face, digits, FILE.py:CLASS, or the folder of a network's bundle"
    )


def _compress(arguments: argparse.Namespace) -> None:
    # A path is the user's own, from where they stand: the project's root folder may be another one.
    given, colon, name = str(arguments.network).partition(":")
    path = Path(given).resolve()
    network = f"{path}{colon}{name}" if colon or path.is_dir() else given
    enter_project()
    from leanface.compress import compress

    compress(network)
