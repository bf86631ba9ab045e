"""The command line. Heavy imports wait until a command needs them."""

import argparse
import functools
import importlib
import logging
import os
import sys
from collections.abc import Sequence
from pathlib import Path

from leanface import paths
from leanface.errors import LeanFaceError


def main(argv: Sequence[str] | None = None) -> int:
    """Run one command; an error that LeanFace raised on purpose is printed without its traceback."""
    argv = list(sys.argv[1:] if argv is None else argv)
    logging.basicConfig(level=logging.INFO, format="%(message)s")
    try:
        if argv[:1] == ["sweep"]:
            # Hydra parses the rest. By name: the sweep is this module's equal, and needs Hydra and DVC.
            importlib.import_module("leanface.sweep.app").main(argv[1:])
            return 0
        arguments = _parser().parse_args(argv)
        arguments.run(arguments)
    except LeanFaceError as error:
        print(f"{type(error).__name__}: {error}", file=sys.stderr)
        return 1
    return 0


def _stage(arguments: argparse.Namespace) -> None:
    from leanface.runner import run_stage

    run_stage(arguments.name, arguments.variant)


def _bench(arguments: argparse.Namespace) -> None:
    from rich.console import Console

    from leanface.config import Benchmark
    from leanface.runtime.bench import bench_file, print_rows

    settings = Benchmark(
        batches=tuple(sorted({1, *arguments.batches})),
        streams=tuple(sorted({1, *arguments.streams})),
        threads=arguments.threads,
        warmup=10,
        window=15,
        windows_max=10,
        stability=0.05,
        energy_seconds=1.0,
    )
    print_rows(bench_file(arguments.model, settings), Console())


def _ablate(arguments: argparse.Namespace) -> None:
    from leanface.ablation.distill import ablate

    table = arguments.table or paths.CONF / "ablation" / f"{arguments.name}.yaml"
    ablate(table, paths.ABLATIONS / table.stem, arguments.steps)


def _gate(arguments: argparse.Namespace) -> None:
    from leanface.report.gate import require_gates

    for line in require_gates(paths.SUMMARY):
        print(line)


def _track(arguments: argparse.Namespace) -> None:
    from leanface import tracking

    print(f"delivered {tracking.deliver()} runs to {tracking.tracking_uri()}")


def _compare(arguments: argparse.Namespace) -> None:
    from rich.console import Console

    # By name: the sweep is this module's equal, and needs Hydra and DVC.
    importlib.import_module("leanface.sweep.compare").compare(arguments.names, arguments.sweep, Console())


def _promote(arguments: argparse.Namespace) -> None:
    for line in importlib.import_module("leanface.sweep.compare").promote(arguments.name):
        print(line)


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="leanface", description="Compress a 3D-face-reconstruction network, and prove the result."
    )
    commands = parser.add_subparsers(required=True, metavar="COMMAND")
    stage = commands.add_parser("stage", help="run one stage; `dvc repro` runs all that are due")
    stages = (paths.ASSETS.parent / "stages").glob("[!_]*.py")
    stage.add_argument("name", choices=sorted(path.stem for path in stages))
    stage.add_argument("--variant", choices=paths.VARIANTS, help="for stages that run once per variant")
    stage.set_defaults(run=_stage)
    bench = commands.add_parser("bench", help="measure an exported network in every runtime that can run it here")
    bench.add_argument("model", type=Path, metavar="MODEL.onnx")
    number = functools.partial(bench.add_argument, type=_count, metavar="N")
    number("--batches", nargs="+", default=[8], help="batch sizes beside 1 (default: 8)")
    number("--streams", nargs="+", default=[1], help="batches at once, beside 1 (default: none)")
    number("--threads", default=os.cpu_count(), help="of all streams together (default: all)")
    bench.set_defaults(run=_bench)
    gate = commands.add_parser("gate", help="fail if the last report's gates failed, and say which")
    gate.set_defaults(run=_gate)
    track = commands.add_parser("track", help="deliver to MLflow what it could not take earlier")
    track.set_defaults(run=_track)
    ablate = commands.add_parser("ablate", help="what each part of a stage's method is worth, under equal conditions")
    ablate.add_argument("name", choices=["distill"])
    ablate.add_argument("--table", type=Path, help="YAML of variants; conf/ablation/NAME.yaml by default")
    ablate.add_argument("--steps", type=int, help="of training, in place of the configuration's")
    ablate.set_defaults(run=_ablate)
    compare = commands.add_parser("compare", help="experiments side by side, and which one to take")
    compare.add_argument("names", nargs="*", metavar="EXP", help="DVC experiments (default: all)")
    compare.add_argument("--sweep", metavar="NAME", help="the trials of this sweep, with those that failed")
    compare.set_defaults(run=_compare)
    promote = commands.add_parser("promote", help="apply an experiment that passes its gates; make it the champion")
    promote.add_argument("name", metavar="EXP")
    promote.set_defaults(run=_promote)
    commands.add_parser("sweep", help="run an experiment per combination of parameters", add_help=False)
    return parser


def _count(text: str) -> int:
    if not text.isdecimal() or int(text) < 1:
        raise argparse.ArgumentTypeError(f"expected a whole number of at least 1, got {text!r}")
    return int(text)
