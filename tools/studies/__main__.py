"""`python -m tools.studies`: what each part of a method is worth, measured under equal conditions."""

import argparse
import importlib
import os
import sys
from collections.abc import Callable
from pathlib import Path

from leanface import paths
from leanface.cli import guarded
from leanface.errors import ArtifactError

TABLES = Path(__file__).parent / "tables"


def _ablate(arguments: argparse.Namespace) -> None:
    from tools.studies.ablate import ablate

    table = arguments.table or TABLES / f"{arguments.stage}.yaml"
    ablate(
        arguments.stage,
        table,
        paths.ABLATIONS / table.stem,
        arguments.steps,
        arguments.share,
        arguments.seconds,
    )


def _main_of(module: str) -> Callable[[argparse.Namespace], None]:
    """Return what calls a study's `main` with the arguments of the same names; importing a study takes long."""

    def run(arguments: argparse.Namespace) -> None:
        given = {name: value for name, value in vars(arguments).items() if name != "run"}
        importlib.import_module(f"tools.studies.{module}").main(**given)

    return run


def _int8(arguments: argparse.Namespace) -> None:
    if arguments.without_vnni:  # PyTorch and OpenVINO read it when they are loaded
        os.environ |= {"ONEDNN_MAX_CPU_ISA": "AVX2", "ATEN_CPU_CAPABILITY": "avx2"}
    from tools.studies.int8_peers import main

    main(arguments.folder, arguments.size)


def _load(arguments: argparse.Namespace) -> None:
    from leanface.photos.load import photo_path
    from tools.studies import serving_load

    try:
        photo = photo_path(arguments.photo).read_bytes()
    except OSError as error:
        raise ArtifactError(f"cannot read {arguments.photo}: {error.strerror}; name a photo's file.") from None
    with serving_load.own_service(arguments.serve) as url:
        loads = serving_load.measure(url, photo, sorted(arguments.rates), arguments.seconds)
    print(serving_load.markdown(loads), end="")
    settings = {"photo": str(arguments.photo), "seconds": arguments.seconds, "serve": arguments.serve}
    serving_load.save(arguments.out, loads, settings)
    print(f"kept in {arguments.out}")


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="python -m tools.studies", description=__doc__)
    studies = parser.add_subparsers(required=True, metavar="STUDY")
    ablate = studies.add_parser("ablate", help="variants of a stage, trained and measured alike")
    ablate.add_argument("stage", choices=["distill", "quantize"])
    ablate.add_argument("--table", type=Path, help="YAML of variants (default: tools/studies/tables/STAGE.yaml)")
    ablate.add_argument("--steps", type=int, help="of training, in place of the configuration's")
    ablate.add_argument("--share", type=_share, default=(1, 1), metavar="N/M", help="the Nth of M processes beside it")
    ablate.add_argument("--seconds", type=float, help="stop training after this time; the same command goes on")
    ablate.set_defaults(run=_ablate)
    table = studies.add_parser("table", help="tables and pictures of an ablation's results")
    table.add_argument("source", type=Path, help="reports/ablations/NAME")
    table.add_argument("target", type=Path, help="a folder, docs/results/NAME for instance")
    table.set_defaults(run=_main_of("table"))
    int8 = studies.add_parser("int8", help="INT8 on the CPU beside ONNX Runtime's own quantization")
    int8.add_argument("folder", type=Path, help="where README.md and int8.json go")
    int8.add_argument("--size", type=int, help="of the faces, in px: then of the network that LeanFace ships")
    int8.add_argument("--without-vnni", action="store_true", help="with no more than AVX2 of the processor")
    int8.set_defaults(run=_int8)
    budget = studies.add_parser("budget", help="mixed precision by search, beside a rule")
    budget.add_argument("folder", type=Path, help="where README.md, budget.json and budget.png go")
    budget.set_defaults(run=_main_of("budget"))
    search = studies.add_parser("search", help="searched networks beside uniform ones, at equal measured time")
    search.add_argument("folder", type=Path, help="where tables.md, search.json and two pictures go")
    search.set_defaults(run=_main_of("search"))
    browser = studies.add_parser("browser", help="how fast the site of `leanface export web` is in Chromium")
    browser.add_argument("folder", type=Path, help="where README.md and browser.json go")
    browser.set_defaults(run=_main_of("browser"))
    phone = studies.add_parser("phone", help="the network in ncnn, beside PyTorch's answers")
    phone.add_argument("folder", type=Path, help="where README.md and phone.json go")
    phone.add_argument(
        "--environment", type=Path, required=True, metavar="DIR", help="of Python, with the packages ncnn and pnnx"
    )
    phone.set_defaults(run=_main_of("phone"))
    load = studies.add_parser("load", help="how long requests to `leanface serve` take, and when it is saturated")
    rates = [2.0, 5.0, 10.0, 20.0]
    load.add_argument("--rates", type=_rate, nargs="+", default=rates, metavar="R", help="requests per second")
    load.add_argument("--seconds", type=_rate, default=10.0, help="for each rate (default: 10)")
    load.add_argument("--photo", default="astronaut", help="a file, or the name of a packaged photo")
    load.add_argument("--out", type=Path, default=paths.LOAD_REPORT, metavar="DIR", help="for load.json and load.md")
    load.add_argument("serve", nargs="*", metavar="-- OPTION", help="of `leanface serve`")
    load.set_defaults(run=_load)
    better = studies.add_parser("better_network", help="what `leanface serve --better-model` gives under load")
    better.add_argument("folder", type=Path, help="where better_network.json and better_network.md go")
    better.add_argument("--rates", type=_rate, nargs="+", default=[1.0, 2.0, 4.0, 8.0, 12.0], metavar="R")
    better.add_argument("--seconds", type=_rate, default=30.0, help="for each rate (default: 30)")
    better.add_argument("--p99-ms", type=float, default=500.0, help="(default: 500)")
    better.set_defaults(run=_main_of("better_network"))
    return parser


def _share(text: str) -> tuple[int, int]:
    number, _, total = text.partition("/")
    if not (number.isdecimal() and total.isdecimal() and 1 <= int(number) <= int(total)):
        raise argparse.ArgumentTypeError(f"expected 1/4 for the first of four processes, got {text!r}")
    return int(number), int(total)


def _rate(text: str) -> float:
    """Read a number that this machine can bear: it has to send all requests itself."""
    try:
        number = float(text)
    except ValueError:
        number = 0.0
    if not 0.1 <= number <= 500:
        raise argparse.ArgumentTypeError(f"expected a number from 0.1 to 500, got {text!r}")
    return number


def main(argv: list[str]) -> int:
    """Run one study and return its exit status."""

    def run(argv: list[str]) -> None:
        arguments = _parser().parse_args(argv)
        arguments.run(arguments)

    return guarded(run, argv)


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
