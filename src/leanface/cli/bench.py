"""`leanface bench`: how fast a network is here."""

import argparse
import functools
import sys
from pathlib import Path

from leanface.cli.options import spin
from leanface.cli.parser import USE, Commands, count
from leanface.device import usable_cores


def add_commands(commands: Commands) -> None:
    """Add `bench`."""
    parser = commands.add(
        "bench",
        USE,
        "measure a network in every runtime that can run it here",
        "leanface bench\nleanface bench --end-to-end --original models/teacher",
        _bench,
    )
    parser.add_argument("model", type=Path, nargs="?", metavar="MODEL.onnx", help="(default: the shipped one)")
    number = functools.partial(parser.add_argument, type=count, metavar="N")
    number("--batches", nargs="+", default=[8], help="batch sizes beside 1 (default: 8)")
    number(
        "--streams", nargs="+", default=[1], help="batches at once, beside 1; from end to end: cameras (default: none)"
    )
    number("--threads", default=usable_cores(), help="threads of all streams together (default: all usable cores)")
    number("--size", help="height and width of the images in pixels (default: as exported)")
    parser.add_argument(
        "--original", type=Path, metavar="BUNDLE", help="a bundle that PyTorch runs beside it, to compare with"
    )
    parser.add_argument("--end-to-end", action="store_true", help="from photo to mesh, step by step")


def _bench(arguments: argparse.Namespace) -> None:
    spin()
    from rich.console import Console

    from leanface.config import Benchmark
    from leanface.runtime.bench import bench_file, print_rows

    settings = Benchmark(
        batches=tuple(sorted({1, *arguments.batches})),
        streams=tuple(sorted({1, *arguments.streams})),
        threads=arguments.threads,
        warmup=10,
        window=8,
        windows_max=20,
        interval=0.1,
        energy_seconds=1.0,
    )
    console = Console(width=None if sys.stdout.isatty() else 140)  # a file has no width
    if arguments.end_to_end:
        from leanface.reconstruction.bench import bench_end_to_end, print_steps

        streams = max(arguments.streams)
        steps = bench_end_to_end(
            arguments.model, settings, original=arguments.original, streams=streams if streams > 1 else 0
        )
        print_steps(steps, console)
        return
    from leanface.reconstruction.network import default_files

    rows = bench_file(
        arguments.model or default_files(), settings, original=arguments.original, image_size=arguments.size
    )
    print_rows(rows, console)
