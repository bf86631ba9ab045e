"""`leanface serve`: the network behind HTTP."""

import argparse
import os
from pathlib import Path
from typing import Any

from leanface.cli.parser import DEPLOY, Commands, count, port

COUNTS = {
    "workers": "processes with a network each",
    "batch-max": "photos read together",
    "queue-max": "photos that may wait; more are refused",
    "bytes-max": "size of the largest photo file",
    "pixels-max": "pixels of the largest photo",
    "faces-max": "faces read in one photo",
}


class Setting:
    """The default of a setting, which is read from `Settings` when help shows it: importing that takes long."""

    def __init__(self, name: str) -> None:
        """Stand for the default of the setting `name`."""
        self._name = name

    def __str__(self) -> str:
        """Return the default."""
        from leanface.serving.settings import Settings

        default = Settings.model_fields[self._name].default
        return f"{default:,}" if isinstance(default, int) and default > 9999 else str(default)


def add_commands(commands: Commands) -> None:
    """Add `serve`."""
    parser = commands.add(
        "serve",
        DEPLOY,
        "serve the network over HTTP, with limits, metrics and a monitor of drift",
        "LEANFACE_API_KEY=0123456789abcdef leanface serve      # then see http://127.0.0.1:8000/docs",
        _serve,
    )

    def add(option: str, help: str, **keywords: Any) -> None:
        default = Setting(option.removeprefix("--").replace("-", "_"))
        parser.add_argument(option, default=default, help=f"{help} (default: %(default)s)", **keywords)

    add("--host", "address to listen on")
    add("--port", "port to listen on", type=port)
    parser.add_argument(
        "--root-path", metavar="PATH", help="path under which a reverse proxy offers it, such as /faces"
    )
    parser.add_argument("--model", type=Path, help="an exported network (default: the one that LeanFace ships)")
    parser.add_argument(
        "--better-model", type=Path, metavar="FILE", help="a slower one, for photos behind which nobody waits"
    )
    parser.add_argument("--p99-ms", type=float, metavar="MS", help="99th percentile of latency within which it is used")
    add("--runtime", "what runs it")
    parser.add_argument(
        "--devices", metavar="LIST", help="GPUs, each with so many workers: all, or numbers such as 0,1"
    )
    parser.add_argument("--threads", type=count, metavar="N", help="threads of each worker (default: its share)")
    for name, text in COUNTS.items():
        add(f"--{name}", text, type=count, metavar="N")
    add("--batch-wait-ms", "wait for a second photo", type=float, metavar="MS")
    add("--time-limit-s", "from a photo to its answer", type=float, metavar="S")
    parser.add_argument("--cors-origins", nargs="+", metavar="ORIGIN", help="web pages that may use it (default: none)")
    add("--tick-s", "how often the monitor judges", type=float, metavar="S")
    parser.add_argument("--no-drift", dest="watch_drift", action="store_const", const=False, help="do not watch drift")
    parser.add_argument("--track", action="store_const", const=True, help="write the monitor's numbers to MLflow")


def _serve(arguments: argparse.Namespace) -> None:
    # The face detector's threads, if they spin while they wait, take the processors from all else that runs here, and
    # the service is soon the slowest of all. OpenMP asks when it is first loaded.
    os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")
    from leanface.serving.run import serve
    from leanface.serving.settings import Settings

    given = {name: value for name, value in vars(arguments).items() if name in Settings.model_fields}
    serve(Settings.given({name: v for name, v in given.items() if v is not None and not isinstance(v, Setting)}))
