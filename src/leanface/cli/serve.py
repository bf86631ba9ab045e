"""`leanface serve` and `leanface drift`: the network behind HTTP, and whether photos look like its training data."""

import argparse
import os
from pathlib import Path

from leanface.cli.options import add_network
from leanface.cli.parser import DEPLOY, Commands, count, port

COUNTS = {
    "threads": "threads of each worker",
    "workers": "processes with a network each (default: 1)",
    "batch-max": "photos read together (default: 8)",
    "queue-max": "photos that may wait; more are refused (default: 64)",
    "bytes-max": "largest photo file (default: 20 MiB)",
    "pixels-max": "largest photo (default: 50 million)",
    "faces-max": "faces read in one photo (default: 16)",
}


def add_commands(commands: Commands) -> None:
    """Add `serve` and `drift`."""
    parser = commands.add(
        "serve",
        DEPLOY,
        "serve the network over HTTP, with limits, metrics and a monitor of drift",
        "LEANFACE_API_KEY=0123456789abcdef leanface serve      # then see http://127.0.0.1:8000/docs",
        _serve,
    )
    add = parser.add_argument
    add("--host", default="127.0.0.1", help="address to listen on (default: localhost)")
    add("--port", type=port, default=8000, help="(default: 8000)")
    add("--model", type=Path, help="an exported network (default: the one that LeanFace ships)")
    add("--runtime", help="what runs it (default: the fastest that can)")
    add("--larger", type=Path, help="a second network, which reads unusual faces again")
    add("--budget-ms", type=float, help="what that may cost per face, on average")
    for name, text in COUNTS.items():
        add(f"--{name}", type=count, metavar="N", help=text)
    add("--batch-wait-ms", type=float, metavar="MS", help="wait for a second photo (default: 2)")
    add("--time-limit-s", type=float, metavar="S", help="from a photo to its answer (default: 20)")
    add("--cors-origins", nargs="+", metavar="ORIGIN", help="web pages that may use it (default: none)")
    add("--tick-s", type=float, metavar="S", help="how often the monitor judges (default: 10)")
    add("--no-drift", dest="watch_drift", action="store_const", const=False, help="do not watch drift")
    add("--track", action="store_const", const=True, help="write the monitor's numbers to MLflow")
    parser = commands.add(
        "drift",
        DEPLOY,
        "tell whether photos look like what the network was trained on",
        "leanface drift album/",
        _drift,
    )
    parser.add_argument("inputs", nargs="+", metavar="INPUT", help="photo, folder, 'pattern' or video")
    add_network(parser)


def _serve(arguments: argparse.Namespace) -> None:
    # The face detector's threads, if they spin while they wait, take the processors from all else that runs here, and
    # the service is soon the slowest of all. OpenMP asks when it is first loaded.
    os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")
    from leanface.errors import BackendError

    try:
        from leanface.serving.run import serve
        from leanface.serving.settings import Settings
    except ModuleNotFoundError as error:
        raise BackendError(f"{error}; `pip install 'leanface[serve]'`.") from None
    given = {name: value for name in Settings.model_fields if (value := getattr(arguments, name, None)) is not None}
    key = os.environ.get("LEANFACE_API_KEY")
    serve(Settings.given(given | ({"api_key": key} if key else {})), arguments.host, arguments.port)


def _drift(arguments: argparse.Namespace) -> None:
    from leanface.serving.input_drift import drift_of, markdown

    print(markdown(drift_of(arguments.inputs, arguments.model, arguments.runtime)), end="")
