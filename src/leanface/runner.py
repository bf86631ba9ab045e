"""Runs one stage: hands it its sections of the configuration, seeds it, and records what it measured."""

import importlib
import inspect
import json
import logging
import os
import random
import sys
import time
import warnings
from functools import partial
from typing import Any

from leanface import catalog, paths
from leanface.config import Config, load_config
from leanface.errors import ConfigError
from leanface.machine_lock import hold_machine

logger = logging.getLogger(__name__)

UNTRACKED = ("configure", "probe")
"""Stages that measure nothing: MLflow gets no run of theirs."""

EXTRAS = ("variant", "log", "track", "seconds")
"""Parameters of a stage's `run` that are not sections of the configuration."""


def stage_sections(name: str) -> list[str]:
    """List the sections of reports/config.yaml that a stage reads: the parameters of its `run`."""
    return sorted(set(inspect.signature(_load(name)).parameters) - set(EXTRAS))


def run_stage(name: str, variant: str | None = None, seconds: float | None = None) -> None:
    """Run src/leanface/stages/NAME.py.

    Args:
        seconds: after which a training stops with its state saved, for another call to go on; benchmark measures what
            it can by then.

    Raises:
        ConfigError: the stage needs a variant and got none, or the other way round.
        LeanFaceError: whatever the stage raises.
    """
    # Lightning 2.6 uses what PyTorch 2.13 deprecates; nothing that a user could do.
    warnings.filterwarnings("ignore", r"`isinstance\(treespec, LeafSpec\)` is deprecated", FutureWarning)
    run = _load(name)
    wanted = inspect.signature(run).parameters
    if ("variant" in wanted) != (variant is not None):
        takes = f"one of {', '.join(catalog.VARIANTS)}" if "variant" in wanted else "none"
        raise ConfigError(f"stage {name} takes {takes} as --variant, got {variant or 'none'}.")
    names = stage_sections(name)
    config = load_config(paths.CONFIG) if names else None
    arguments: dict[str, Any] = {section: getattr(config, section) for section in names}
    if variant is not None:
        arguments["variant"] = variant
    if "seconds" in wanted:
        arguments["seconds"] = seconds
    _seed(arguments.get("seed", 0))
    # A training on several devices starts copies of this command: the first process speaks and records for all.
    if int(os.environ.get("LOCAL_RANK", "0")) > 0:
        run(**arguments, **{name: _discard for name in ("log", "track") if name in wanted})
        return
    title, start = name if variant is None else f"{name}@{variant}", time.monotonic()
    logger.info("%s: %s", title, _describe(run))
    if name in UNTRACKED:
        run(**arguments)
    else:
        _record(title, name, run, arguments, config)
    logger.info("%s: done in %.0f s", title, time.monotonic() - start)


def _record(title: str, name: str, run: Any, arguments: dict[str, Any], config: Config | None) -> None:
    """Run a stage, and hand what it measured to MLflow."""
    from leanface import tracking

    assert config is not None
    params = config.model_dump(include=set(stage_sections(name)))
    with hold_machine(name), tracking.stage_run(title, params, {"stage": name}, in_pipeline=True) as record:
        if "log" in inspect.signature(run).parameters:
            arguments["log"] = record.log_live
        if "track" in inspect.signature(run).parameters:
            arguments["track"] = partial(tracking.record_part, name)
        record.log(run(**arguments), 0)
    if name == "report" and not tracking.in_trial():
        from leanface.task import subject_of

        summary = json.loads(paths.SUMMARY.read_text())
        pages = [paths.CONFIG, paths.SUMMARY, paths.REPORT_HTML, paths.REPORT_MD, paths.MODEL_CARD, paths.FIGURES]
        pages.append(paths.evaluation_dir(catalog.DEPLOYED) / subject_of(config.task).picture)
        tracking.log_summary(summary, config.model_dump(), pages, {}, paths.onnx_path(catalog.DEPLOYED))


def _describe(run: Any) -> str:
    """Return what a stage does, the first line of its module: "Stage NAME: what it does."."""
    return (sys.modules[run.__module__].__doc__ or "").splitlines()[0].partition(": ")[2].rstrip(".")


def _discard(*_: object) -> None: ...


def _load(name: str) -> Any:
    return importlib.import_module(f"leanface.stages.{name}").run


def _seed(seed: int) -> None:
    """Seed the global generators that are loaded: the stage's imports tell which it can draw from."""
    random.seed(seed)
    if "numpy" in sys.modules:
        sys.modules["numpy"].random.seed(seed)
    if "torch" in sys.modules:
        sys.modules["torch"].manual_seed(seed)
