"""Options that several commands have in common."""

import argparse
import os
from pathlib import Path

from leanface.cli.parser import count


def add_network(parser: argparse.ArgumentParser) -> None:
    """Add --model and --runtime: which network is used, and what runs it."""
    parser.add_argument(
        "--model", type=Path, metavar="FILE", help="an .onnx, bundle or .plan (default: the one shipped or made here)"
    )
    parser.add_argument("--runtime", default="auto", help="what runs it, or cpu or gpu (default: the fastest that can)")


def add_threads(parser: argparse.ArgumentParser, of: str) -> None:
    """Add --threads."""
    parser.add_argument("--threads", type=count, metavar="N", help=f"threads {of} (default: all)")


def spin() -> None:
    """Let PyTorch's threads spin while they wait, as they do by default.

    Asleep, which is right beside other work, they take twice as long at batch 1, which would flatter every other
    runtime. OpenMP asks when it is first loaded.
    """
    os.environ.pop("OMP_WAIT_POLICY", None)
