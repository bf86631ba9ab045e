"""The command line. Heavy imports wait until a command needs them."""

import argparse
import functools
import importlib
import logging
import os
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from leanface import paths
from leanface.errors import LeanFaceError


def main(argv: Sequence[str] | None = None) -> int:
    """Run one command; an error that LeanFace raised on purpose is printed without its traceback."""
    argv = list(sys.argv[1:] if argv is None else argv)
    logging.basicConfig(level=logging.INFO, format="%(message)s")
    try:
        if argv[:1] == ["sweep"]:
            # Hydra parses the rest. By name: the sweep is this module's equal, and needs Hydra and DVC.
            importlib.import_module("leanface.sweep").main(argv[1:])
            return 0
        arguments = _parser().parse_args(argv)
        arguments.run(arguments)
    except LeanFaceError as error:
        print(f"{type(error).__name__}: {error}", file=sys.stderr)
        return 1
    return 0


def _stage(arguments: argparse.Namespace) -> None:
    from leanface.runner import run_stage

    run_stage(arguments.name, arguments.variant, arguments.seconds)


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


def _offline_run(arguments: argparse.Namespace) -> None:
    from leanface.offline.run import run_offline

    run_offline(arguments.stages.split(","), arguments.seconds, arguments.config, arguments.set)


def _offline_pack(arguments: argparse.Namespace) -> None:
    from leanface.offline.pack import pack

    packed = pack(
        arguments.folder, arguments.stages.split(","), int(arguments.part_mib * 2**20), weights=not arguments.no_weights
    )
    print(f"{packed.size_bytes / 1e6:.1f} MB in {len(packed.parts)} parts: {', '.join(map(str, packed.parts))}")


def _offline_unpack(arguments: argparse.Namespace) -> None:
    from leanface.offline.pack import restore

    print(f"put back: {', '.join(restore(arguments.folder).steps)}")


def _import_run(arguments: argparse.Namespace) -> None:
    from leanface.offline.bring import import_run

    print(f"kept in {import_run(arguments.folder, arguments.name, keep_only=arguments.keep_only)}")


def _results(arguments: argparse.Namespace) -> None:
    from leanface.report.gpu import write_results

    targets = write_results(arguments.run_folder, arguments.folder, arguments.cpu)["targets"]
    missed = [name for name, target in targets.items() if not target["passed"]]
    print(f"{arguments.folder / 'README.md'}; targets missed: {', '.join(missed) or 'none'}")


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="leanface", description="Compress a 3D-face-reconstruction network, and prove the result."
    )
    commands = parser.add_subparsers(required=True, metavar="COMMAND")
    stage = commands.add_parser("stage", help="run one stage; `dvc repro` runs all that are due")
    stages = (paths.ASSETS.parent / "stages").glob("[!_]*.py")
    stage.add_argument("name", choices=sorted(path.stem for path in stages))
    stage.add_argument("--variant", choices=paths.EXPORTED, help="for stages that run once per variant")
    stage.add_argument("--seconds", type=float, help="stop a training after so long; the same command goes on")
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
    _add_offline(commands)
    results = commands.add_parser("results", help="tables and a picture of a GPU's run, for docs/results/")
    results.add_argument("run_folder", type=Path, metavar="RUN", help="what import-run made, or this folder: .")
    results.add_argument("folder", type=Path, help="to write to")
    results.add_argument("--cpu", type=Path, help="benchmark.json of the same networks on a CPU, to stand beside it")
    results.set_defaults(run=_results)
    commands.add_parser("sweep", help="run an experiment per combination of parameters", add_help=False)
    return parser


def _add_offline(commands: Any) -> None:
    offline = commands.add_parser("offline", help="run stages where there is neither network nor DVC nor MLflow")
    actions = offline.add_subparsers(required=True, metavar="ACTION")
    run = actions.add_parser("run", help="run stages from a resolved configuration; what is up to date is skipped")
    run.add_argument("--stages", required=True, metavar="A,B", help="of dvc.yaml; export stands for every export@...")
    run.add_argument("--seconds", type=float, default=560.0, help="after which nothing runs any more (default: 560)")
    run.add_argument("--config", type=Path, default=paths.CONFIG, help=f"resolved (default: {paths.CONFIG})")
    run.add_argument("-S", "--set", action="append", default=[], metavar="KEY=VALUE", help="change a value of it")
    run.set_defaults(run=_offline_run)
    pack = actions.add_parser("pack", help="write reports, logs and half-size weights as a few files")
    pack.add_argument("folder", type=Path)
    pack.add_argument("--stages", required=True, metavar="A,B", help="whose weights and reports are taken")
    pack.add_argument("--part-mib", type=float, default=16.0, help="size of a file (default: 16)")
    pack.add_argument("--no-weights", action="store_true", help="reports only, of one of many runs")
    pack.set_defaults(run=_offline_pack)
    unpack = actions.add_parser("unpack", help="put what was packed back, to go on on a new machine")
    unpack.add_argument("folder", type=Path)
    unpack.set_defaults(run=_offline_unpack)
    bring = commands.add_parser("import-run", help="take over what `offline pack` wrote elsewhere: DVC, MLflow, runs/")
    bring.add_argument("folder", type=Path)
    bring.add_argument("--name", required=True, help="of its folder in runs/")
    bring.add_argument("--keep-only", action="store_true", help="leave the pipeline's own results as they are")
    bring.set_defaults(run=_import_run)


def _count(text: str) -> int:
    if not text.isdecimal() or int(text) < 1:
        raise argparse.ArgumentTypeError(f"expected a whole number of at least 1, got {text!r}")
    return int(text)
