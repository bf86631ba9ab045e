"""`leanface auto`: say what the network may cost and how wrong it may be; the pipeline finds and makes it."""

import argparse
from typing import Any

from leanface.catalog import RUNTIMES
from leanface.cli.parser import EXPERIMENT, Commands, count
from leanface.environment import enter_project
from leanface.errors import ConfigError

COSTS = {
    "--ms": ("latency_ms", "time of one call (ms)"),
    "--images-per-second": ("images_per_second", "at least so many"),
    "--mb": ("size_mb", "size of the file (10^6 bytes)"),
    "--memory-mb": ("memory_mb", "memory of the process that runs it (10^6 bytes)"),
    "--mj": ("energy_mj", "energy per image (mJ), where the machine counts it"),
    "--error-mm": ("vertex_mm", "mean distance of a face's vertices to the truth; +0.2: beyond the original's"),
}
"""By option: the target of section `search`, and what it means."""


def add_commands(commands: Commands) -> None:
    """Add `auto`."""
    parser = commands.add(
        "auto",
        EXPERIMENT,
        "find and make the network that meets your targets on this machine, or say that none does",
        "leanface auto --runtime openvino --ms 1.0 --error-mm +0.2",
        _auto,
    )
    for option, (target, help) in COSTS.items():
        parser.add_argument(option, dest=target, metavar="LIMIT", help=help)
    parser.add_argument(
        "--error", action="append", default=[], metavar="MEASURE=LIMIT", help="another error of the task"
    )
    parser.add_argument("--runtime", choices=RUNTIMES, help="that it is deployed in (default: that of conf/search)")
    parser.add_argument("--precision", choices=["fp32", "fp16", "int8"], help="that it is deployed in (default: int8)")
    parser.add_argument("--batch", type=count, metavar="N", help="images per call (default: 1)")


def _auto(arguments: argparse.Namespace) -> None:
    given = vars(arguments)
    targets = {target: given[target] for target, _ in COSTS.values() if given[target] is not None}
    for error in arguments.error:
        measure, _, limit = str(error).partition("=")
        targets[measure] = limit
    if not targets:
        raise ConfigError("name at least one target, such as --ms 1.0; see `leanface auto --help`.")
    search: dict[str, Any] = {key: given[key] for key in ("runtime", "precision", "batch") if given[key] is not None}
    enter_project()
    from leanface.compress import auto

    for line in auto({**search, "targets": targets}):
        print(line)
