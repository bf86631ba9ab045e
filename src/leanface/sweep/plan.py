"""What a sweep would do: its trials, whether each is valid, which stages run for them, and for how long."""

from collections import Counter
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from hydra import compose, initialize_config_dir
from hydra._internal.core_plugins.basic_sweeper import BasicSweeper
from hydra._internal.utils import get_args_parser
from hydra.core.override_parser.overrides_parser import OverridesParser
from hydra.core.override_parser.types import Override
from omegaconf import OmegaConf
from rich.console import Console
from rich.table import Table

from leanface import paths
from leanface.composition import Composer
from leanface.device import usable_cores
from leanface.errors import ConfigError, did_you_mean
from leanface.params import known_keys
from leanface.sweep.experiments import Stages
from leanface.sweep.trials import typical_seconds

OWN_KEYS = ("objectives", "name")
"""Top-level keys that are a sweep's own, not params.yaml's."""

ERRORS_SHOWN = 10


@dataclass(frozen=True)
class Plan:
    """A command line, understood.

    Attributes:
        varied: each swept key, and the values as they were given.
        overrides: all of Hydra's, those of conf/sweep/ included.
        trials: number of trials of a sweeper that searches; None for a grid.
        threads: threads of each of several trials at once; None where trials run one at a time.
    """

    name: str
    varied: dict[str, str]
    overrides: list[Override]
    trials: int | None
    threads: int | None


@dataclass(frozen=True)
class Job:
    """A trial of a grid, with params.yaml as the trial has it."""

    overrides: list[str]
    params: dict[str, Any]


def threads_of(launcher: Mapping[str, Any]) -> int | None:
    """Return the threads of each of several trials at once on a machine; None where trials run one at a time."""
    cores = usable_cores()
    if "n_jobs" in launcher:  # joblib
        jobs = cores if launcher["n_jobs"] < 0 else launcher["n_jobs"]
        return None if jobs == 1 else max(1, cores // jobs)
    if "cpus_per_task" in launcher:  # Ray, submitit
        return int(launcher["cpus_per_task"] or 1)
    return None


def understand(arguments: Sequence[str], conf: str, params: Mapping[str, Any]) -> Plan | None:
    """Read Hydra's command line; None if it asks for something other than a run.

    Raises:
        ConfigError: it changes a key that params.yaml does not have, or removes one.
    """
    parsed = get_args_parser().parse_args(list(arguments))
    if parsed.help or parsed.hydra_help or parsed.cfg or parsed.info or parsed.shell_completion:
        return None
    kept_sweeps = sorted(path.stem for path in Path(conf).glob("*.yaml"))
    if parsed.config_name is not None and parsed.config_name.removesuffix(".yaml") not in kept_sweeps:
        raise ConfigError(
            f"{paths.CONF}/sweep/ has no {parsed.config_name}.{did_you_mean(parsed.config_name, kept_sweeps)} "
            f"It has {', '.join(kept_sweeps)}."
        )
    given = OverridesParser.create().parse_overrides(parsed.overrides)
    check_keys(given, params)
    plain = [_first(override) for override in given]
    with initialize_config_dir(conf, version_base="1.3"):
        config: Any = compose(parsed.config_name or "params", plain, return_hydra_config=True)
    sweeper = config.hydra.sweeper
    kept: Any = OmegaConf.to_container(sweeper.params) if sweeper.get("params") else {}
    overrides = OverridesParser.create().parse_overrides([f"{key}={value}" for key, value in kept.items()])
    check_keys(overrides, params)
    overrides += given
    varied = {
        override.get_key_element().lstrip("+"): str(override.get_value_string())
        for override in overrides
        if override.is_sweep_override()
    }
    return Plan(str(config.name), varied, overrides, sweeper.get("n_trials"), threads_of(config.hydra.launcher))


def check_keys(overrides: Sequence[Override], params: Mapping[str, Any]) -> None:
    """Refuse keys that params.yaml does not have, before Hydra suggests to add them.

    Raises:
        ConfigError: it names the key that was probably meant.
    """
    present, known = _keys(params), known_keys()
    for override in overrides:
        key = str(override.key_or_group)
        if key.startswith("hydra.") or key.startswith("hydra/") or key in OWN_KEYS or override.is_force_add():
            continue
        if override.is_delete():
            raise ConfigError(f"~{key}: a sweep cannot remove a key of {paths.PARAMS}; remove it from the file.")
        if key in present or override.is_add():
            continue
        if key in known:
            raise ConfigError(f"{key} is not in {paths.PARAMS}; +{override.input_line} adds it.")
        raise ConfigError(
            f"{key} is not a key of {paths.PARAMS}.{did_you_mean(key, {*present, *known})} It has {', '.join(present)}."
        )


def _keys(tree: Mapping[str, Any], prefix: str = "") -> list[str]:
    found: list[str] = []
    for key, value in tree.items():
        found.append(f"{prefix}{key}")
        found += _keys(value, f"{prefix}{key}.") if isinstance(value, dict) else []  # pyright: ignore[reportUnknownArgumentType]
    return found


def _first(override: Override) -> str:
    """Return the override itself, or with the first value of a sweep."""
    return override.input_line or "" if not override.is_sweep_override() else _each(override)[0]


def _each(override: Override) -> list[str]:
    """Return a sweep's values as overrides: all of a choice or range, the ends of an interval."""
    value: Any = override.value()
    values = override.sweep_string_iterator() if override.is_discrete_sweep() else (value.start, value.end)
    return [f"{override.get_key_element()}={value}" for value in values]


def jobs_of(plan: Plan, params: Mapping[str, Any]) -> list[Job]:
    """Return the trials of a grid; none for a sweeper that searches."""
    if plan.trials is not None:
        return []
    return [_job(combination, params) for combination in BasicSweeper.split_arguments(_own(plan), None)[0]]


def check_trials(plan: Plan, params: Mapping[str, Any]) -> None:
    """Compose and validate the configuration of every trial; of a search, those at the ends of what it may choose.

    Raises:
        ConfigError: trials are not valid; each reason once.
    """
    jobs = jobs_of(plan, params)
    if plan.trials is not None:
        own = _own(plan)
        start = {override.get_key_element(): _first(override) for override in own}
        changes = [start] + [
            start | {override.get_key_element(): value}
            for override in own if override.is_sweep_override() for value in _each(override)
        ]  # fmt: skip
        jobs = [_job(list(each.values()), params) for each in changes]
    composer, reasons = Composer(paths.CONF), dict[str, str]()
    wrong = 0
    for job in jobs:
        try:
            composer.compose(job.params, str(paths.PARAMS))
        except ConfigError as error:
            wrong += 1
            reasons.setdefault(str(error), " ".join(job.overrides) or "as params.yaml is")
    if reasons:
        lines = [f"{overrides}:\n{reason}" for reason, overrides in list(reasons.items())[:ERRORS_SHOWN]]
        more = [f"and {len(reasons) - ERRORS_SHOWN} other reasons"] if len(reasons) > ERRORS_SHOWN else []
        raise ConfigError("\n".join([f"{wrong} of {len(jobs)} trials are not valid; nothing was run.", *lines, *more]))


def _own(plan: Plan) -> list[Override]:
    """Return the overrides of params.yaml."""
    return [
        override for override in plan.overrides
        if not str(override.key_or_group).startswith(("hydra.", "hydra/")) and override.key_or_group not in OWN_KEYS
    ]  # fmt: skip


def _job(overrides: list[str], params: Mapping[str, Any]) -> Job:
    tree: Any = OmegaConf.create(dict(params))
    for override in OverridesParser.create().parse_overrides(overrides):
        OmegaConf.update(tree, str(override.key_or_group), override.value(), force_add=True)
    container: Any = OmegaConf.to_container(tree, resolve=True)
    return Job(overrides, container)


def print_plan(plan: Plan, stages: Stages, jobs: Sequence[Job], finished: int, params: Mapping[str, Any]) -> None:
    """Print how often each stage runs, at most, and for how long.

    Args:
        jobs: the trials of a grid that are not finished.
        finished: how many are.
        params: params.yaml as it is.
    """
    console = Console()
    count = len(jobs) if plan.trials is None else plan.trials
    console.print(f"Sweep [bold]{plan.name}[/]: {count} trials to run, {finished} finished")
    for key, values in plan.varied.items():
        console.print(f"  {key}: {values}")
    # Each scale is a pipeline of its own: no stage is shared between two, and no time says anything about another's.
    scales = Counter(str(job.params.get("scale")) for job in jobs) or Counter({str(params.get("scale")): count})
    table = Table("Stage", *(["Scale"] if len(scales) > 1 else []), "Runs", "From the cache", "Seconds each",
                  box=None, header_style="dim", pad_edge=False)  # fmt: skip
    varied = [key for key in plan.varied if key != "scale"]
    total, known, unknown = 0.0, 0, dict[str, None]()
    for scale, trials in scales.items():
        times = typical_seconds(scale)
        chosen = [job.overrides for job in jobs if str(job.params.get("scale")) == scale]
        for name in stages.sections:
            runs = _runs(name, trials, chosen, [key for key in varied if name not in stages.shared([key])])
            each = times.get(name)
            if each is None:
                unknown[name] = None
            else:
                known, total = known + 1, total + runs * each
            of_scale = [scale] if len(scales) > 1 else []
            seconds = "not known" if each is None else f"{each:.0f}"
            table.add_row(name, *of_scale, str(runs), str(trials - runs), seconds)
    console.print(table)
    if not known:
        console.print(f"No estimate: no trial at scale {' or '.join(scales)} was recorded here yet.")
    else:
        console.print(f"About {total / 60:.0f} minutes at the speed of the last trials, one after the other"
                      + (f", and what {', '.join(unknown)} take" if unknown else "") + ".")  # fmt: skip
    console.print("Stages that no trial changes run once at most: not at all where their results are in the cache.")


def _runs(stage: str, trials: int, chosen: Sequence[list[str]], relevant: Collection[str]) -> int:
    """Count how often a stage runs for trials of one scale, if nothing of it is in the cache."""
    if stage in ("configure", "probe"):
        return trials
    if not relevant:
        return min(trials, 1)
    if not chosen:  # a search: each trial may be new
        return trials
    return len({tuple(item for item in job if item.lstrip("+").split("=")[0] in relevant) for job in chosen})
