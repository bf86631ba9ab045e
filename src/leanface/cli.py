"""The command line. Heavy imports wait until a command needs them."""

import argparse
import importlib
import inspect
import json
import logging
import random
import sys
from collections.abc import Mapping, Sequence
from typing import Any

from leanface import paths
from leanface.errors import ConfigError, LeanFaceError

UNTRACKED = ("configure", "probe")
"""Stages that measure nothing: MLflow gets no run of theirs."""


def main(argv: Sequence[str] | None = None) -> int:
    """Run one command; an error that LeanFace raised on purpose is printed without its traceback."""
    argv = list(sys.argv[1:] if argv is None else argv)
    logging.basicConfig(level=logging.INFO, format="%(message)s")
    try:
        if argv[:1] == ["sweep"]:
            # Hydra reads the rest itself, and by then knows more options than would be listed here.
            importlib.import_module("leanface.sweep").main(argv[1:])
            return 0
        arguments = _parser().parse_args(argv)
        run_stage(arguments.name, arguments.variant)
    except LeanFaceError as error:
        print(f"{type(error).__name__}: {error}", file=sys.stderr)
        return 1
    return 0


def run_stage(name: str, variant: str | None = None) -> None:
    """Run a stage of dvc.yaml with the sections of reports/config.yaml that its `run` names as parameters.

    Raises:
        ConfigError: the stage needs a variant and got none, or the other way round.
    """
    run = importlib.import_module(f"leanface.stages.{name}").run
    wanted = inspect.signature(run).parameters
    if ("variant" in wanted) != (variant is not None):
        raise ConfigError(f"stage {name} takes {'a' if 'variant' in wanted else 'no'} --variant, got {variant}")
    extra: dict[str, Any] = {"variant": variant} if variant is not None else {}
    sections: dict[str, Any] = {}
    if set(wanted) - {"variant", "log"}:
        from leanface.config import load_config

        config = load_config(paths.CONFIG)
        sections = {key: getattr(config, key) for key in wanted if key not in ("variant", "log")}
        _seed(sections.get("seed", 0))
    if name in UNTRACKED:
        run(**sections, **extra)
        return

    from leanface import tracking

    params = {key: getattr(value, "model_dump", lambda value=value: value)() for key, value in sections.items()}
    title = name if variant is None else f"{name}@{variant}"
    with tracking.stage_run(title, {**params, **extra}, {"stage": name}) as (log_live, log):
        if "log" in wanted:
            extra["log"] = log_live
        log(run(**sections, **extra), 0)
    if name == "report":
        _log_pipeline()


def _log_pipeline() -> None:
    """The summary run: every parameter, and each variant's headline numbers as `VARIANT/METRIC`."""
    from leanface import tracking
    from leanface.config import load_config

    summary: dict[str, Any] = json.loads(paths.SUMMARY.read_text())
    metrics = {
        f"{variant}/{metric}": value
        for variant, row in summary["variants"].items()
        for metric, value in row.items()
        if isinstance(value, int | float)
    }
    gates: Mapping[str, Any] = summary["gates"]
    passed = all(gate["passed"] for gate in gates.values())
    tracking.log_summary(
        metrics,
        load_config(paths.CONFIG).model_dump(),
        [paths.CONFIG, paths.SUMMARY, paths.REPORT_HTML, paths.REPORT_MD, paths.FIGURES],
        {"stage": "summary", "gates": "passed" if passed else "failed"},
    )


def _seed(seed: int) -> None:
    random.seed(seed)
    import numpy as np

    np.random.seed(seed)  # noqa: NPY002 - the libraries underneath draw from it
    if "torch" in sys.modules:
        sys.modules["torch"].manual_seed(seed)


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="leanface", description="Compress a 3D-face-reconstruction network.")
    commands = parser.add_subparsers(required=True, metavar="COMMAND")
    stage = commands.add_parser("stage", help="run one stage of dvc.yaml (`dvc repro` runs those that are due)")
    names = sorted(path.stem for path in (paths.ASSETS.parent / "stages").glob("[!_]*.py"))
    stage.add_argument("name", choices=names)
    stage.add_argument("--variant", choices=paths.VARIANTS, help="for the stages that run once per variant")
    commands.add_parser("sweep", help="run one experiment per combination of parameters (`leanface sweep --help`)")
    return parser


