"""`python -m tools.gpu_box`: the pipeline on a machine that has neither network nor DVC, MLflow or Hydra."""

import argparse
import signal
import sys
from pathlib import Path

import yaml

from leanface import paths
from leanface.cli import guarded
from leanface.config import Benchmark, load_face_config
from tools.gpu_box.pack import pack, unpack
from tools.gpu_box.run import run_offline

GPU_BENCHMARK = Path("conf/benchmark/gpu.yaml")


def _run(arguments: argparse.Namespace) -> None:
    # As Ctrl-C: `timeout` and job schedulers send it, and a stage, in a session of its own, would run on.
    signal.signal(signal.SIGTERM, signal.default_int_handler)
    run_offline(arguments.stages.split(","), arguments.seconds, arguments.config, arguments.set)


def _pack(arguments: argparse.Namespace) -> None:
    packed = pack(
        arguments.folder,
        arguments.stages.split(","),
        int(arguments.part_mib * 2**20),
        reports=arguments.reports.split(",") if arguments.reports else (),
        weights=not arguments.no_weights,
    )
    print(f"{packed.size_bytes / 1e6:.1f} MB in {len(packed.parts)} parts: {', '.join(map(str, packed.parts))}")


def _unpack(arguments: argparse.Namespace) -> None:
    print(f"put back: {', '.join(unpack(arguments.folder).steps)}")


def _shipped(arguments: argparse.Namespace) -> None:
    from tools.gpu_box.shipped import measure_shipped

    config = load_face_config(arguments.config)
    settings = Benchmark.model_validate(yaml.safe_load(GPU_BENCHMARK.read_text()))
    measure_shipped(arguments.folder, settings, config.data, config.seed, arguments.faces)


def _once(arguments: argparse.Namespace) -> None:
    from tools.gpu_box.shipped import run_once

    run_once(arguments.variant, arguments.runtime, arguments.batch)


def _results(arguments: argparse.Namespace) -> None:
    # It draws; the machine without a network need not be able to.
    from tools.gpu_box.results import write_results

    write_results(arguments.run_folder, arguments.folder, arguments.commit)


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="python -m tools.gpu_box", description=__doc__)
    actions = parser.add_subparsers(required=True, metavar="ACTION")
    run = actions.add_parser("run", help="there: run stages from a resolved configuration; skip what is up to date")
    run.add_argument("--stages", required=True, metavar="A,B", help="of dvc.yaml; export stands for every export@...")
    run.add_argument("--seconds", type=float, default=560.0, help="time limit (default: 560)")
    run.add_argument("--config", type=Path, default=paths.CONFIG, help=f"resolved (default: {paths.CONFIG})")
    run.add_argument("-S", "--set", action="append", default=[], metavar="KEY=VALUE", help="change a value of it")
    run.set_defaults(run=_run)
    packing = actions.add_parser("pack", help="there: write reports, logs and half-size weights as a few files")
    packing.add_argument("folder", type=Path)
    packing.add_argument("--stages", required=True, metavar="A,B", help="whose weights and reports are taken")
    packing.add_argument("--reports", metavar="A,B", help="stages whose reports are taken without their weights")
    packing.add_argument("--part-mib", type=float, default=16.0, help="size of a file (default: 16)")
    packing.add_argument("--no-weights", action="store_true", help="reports only, of one of many runs")
    packing.set_defaults(run=_pack)
    shipped = actions.add_parser("shipped", help="there: measure the networks that ship with LeanFace")
    shipped.add_argument("folder", type=Path, help="for the networks, faces and results")
    shipped.add_argument("--config", type=Path, default=paths.CONFIG, help=f"resolved (default: {paths.CONFIG})")
    shipped.add_argument("--faces", type=int, default=500, help="to compare INT8 with ONNX Runtime's (default: 500)")
    shipped.set_defaults(run=_shipped)
    once = actions.add_parser("once", help="there: one batch of one network, for a profiler")
    once.add_argument("variant")
    once.add_argument("runtime")
    once.add_argument("batch", type=int)
    once.set_defaults(run=_once)
    unpack = actions.add_parser("unpack", help="there: put back what was packed, to go on on a new machine")
    unpack.add_argument("folder", type=Path)
    unpack.set_defaults(run=_unpack)
    results = actions.add_parser("results", help="here: a page of what `shipped` measured, for docs/results/")
    results.add_argument("run_folder", type=Path, metavar="RUN", help="the folder that `shipped` wrote")
    results.add_argument("folder", type=Path, help="to write to")
    results.add_argument("--commit", required=True, help="that was measured")
    results.set_defaults(run=_results)
    return parser


def main(argv: list[str]) -> int:
    """Run one action and return its exit status."""

    def run(argv: list[str]) -> None:
        arguments = _parser().parse_args(argv)
        arguments.run(arguments)

    return guarded(run, argv)


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
