"""`leanface demo`: a page in the browser."""

import argparse

from leanface.cli.options import add_network, add_threads, spin
from leanface.cli.parser import USE, Commands, port


def add_commands(commands: Commands) -> None:
    """Add `demo`."""
    parser = commands.add(
        "demo",
        USE,
        "open a page that shows a photo's 3D face by two networks",
        "leanface demo      # then open http://127.0.0.1:7860",
        _demo,
    )
    add = parser.add_argument
    add("--host", default="127.0.0.1", help="address to listen on (default: %(default)s)")
    add("--port", type=port, default=7860, help="port to listen on (default: %(default)s)")
    add("--root-path", default="", metavar="PATH", help="path under which a reverse proxy offers it, such as /faces")
    add("--compare", default="original", metavar="MODEL", help="stands beside it (default: original)")
    add_network(parser)
    add_threads(parser, "of each network")


def _demo(arguments: argparse.Namespace) -> None:
    spin()
    from leanface.demo.app import run

    run(
        arguments.host,
        arguments.port,
        root_path=arguments.root_path,
        model=arguments.model,
        runtime=arguments.runtime,
        original=arguments.compare,
        threads=arguments.threads,
    )
