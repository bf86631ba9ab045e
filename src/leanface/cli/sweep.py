"""`leanface sweep`, `compare`, `promote` and `gate`: many experiments, and which one to take."""

import argparse
import importlib
import sys

from leanface import paths
from leanface.cli.parser import EXPERIMENT, Commands
from leanface.environment import enter_project


def add_commands(commands: Commands) -> None:
    """Add `sweep`, `compare`, `promote` and `gate`."""
    commands.add(
        "sweep",
        EXPERIMENT,
        "run an experiment per combination of parameters",
        "leanface sweep -m prune.ratio=0.3,0.5 distill.temperature=2,4",
        add_help=False,  # Hydra's
    )
    compare = commands.add(
        "compare",
        EXPERIMENT,
        "show experiments side by side, and which one to take",
        "leanface compare\nleanface compare --sweep night",
        _compare,
    )
    compare.add_argument("names", nargs="*", metavar="EXP", help="DVC experiments (default: all)")
    compare.add_argument("--sweep", metavar="NAME", help="the trials of this sweep, with those that failed")
    promote = commands.add(
        "promote",
        EXPERIMENT,
        "apply an experiment that passes its gates, and make it MLflow's champion",
        "leanface promote EXP      # a name from `leanface compare`",
        _promote,
    )
    promote.add_argument("name", metavar="EXP")
    gate = commands.add(
        "gate", EXPERIMENT, "fail if the last report's gates failed, and say which", "leanface gate && deploy", _gate
    )
    gate.add_argument("--show", action="store_true", help="show the verdict and the headline, and do not fail")


# By name: the sweep is this module's equal, and needs Hydra and DVC.
def _compare(arguments: argparse.Namespace) -> None:
    enter_project()
    from rich.console import Console

    console = Console(width=None if sys.stdout.isatty() else 140)  # a file has no width
    importlib.import_module("leanface.sweep.compare").compare(arguments.names, arguments.sweep, console)


def _promote(arguments: argparse.Namespace) -> None:
    enter_project()
    for line in importlib.import_module("leanface.sweep.compare").promote(arguments.name):
        print(line)


def _gate(arguments: argparse.Namespace) -> None:
    enter_project()
    from leanface.report.gate import require_gates, verdict_lines

    for line in (verdict_lines if arguments.show else require_gates)(paths.SUMMARY):
        print(line)
