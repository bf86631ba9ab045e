"""What a sweep would do: its combinations, the stages that run for them, and how long that may take."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from hydra import compose, initialize_config_dir
from hydra._internal.core_plugins.basic_sweeper import BasicSweeper
from hydra._internal.utils import get_args_parser
from hydra.core.override_parser.overrides_parser import OverridesParser
from hydra.core.override_parser.types import Override
from omegaconf import OmegaConf
from rich.console import Console
from rich.table import Table

from leanface.device import usable_cores
from leanface.sweep.experiments import Stages
from leanface.sweep.trials import typical_seconds


@dataclass(frozen=True)
class Plan:
    """A command line, understood.

    Attributes:
        varied: each swept key, and the values as they were given.
        overrides: all of Hydra's, those of conf/sweep/ included.
        trials: how many a sweeper that searches was given; None for a grid.
        threads: processor threads of each of several trials at once; None where trials run one after the other.
    """

    name: str
    varied: dict[str, str]
    overrides: list[Override]
    trials: int | None
    threads: int | None


def threads_of(launcher: Mapping[str, Any]) -> int | None:
    """Processor threads of each of several trials at once on a machine; None where there is but one."""
    cores = usable_cores()
    if "n_jobs" in launcher:  # joblib
        jobs = cores if launcher["n_jobs"] < 0 else launcher["n_jobs"]
        return None if jobs == 1 else max(1, cores // jobs)
    if "cpus_per_task" in launcher:  # Ray, submitit
        return int(launcher["cpus_per_task"] or 1)
    return None


def options(arguments: Sequence[str], conf: str) -> Plan | None:
    """Read Hydra's command line; None if it asks for something else than a run."""
    parsed = get_args_parser().parse_args(list(arguments))
    if parsed.help or parsed.hydra_help or parsed.cfg or parsed.info or parsed.shell_completion:
        return None
    given = OverridesParser.create().parse_overrides(parsed.overrides)
    plain = [_first(override) for override in given]  # a wrong key is refused here, before anything runs
    with initialize_config_dir(conf, version_base="1.3"):
        config: Any = compose(parsed.config_name or "params", plain, return_hydra_config=True)
    sweeper = config.hydra.sweeper
    kept: Any = OmegaConf.to_container(sweeper.params) if sweeper.get("params") else {}
    overrides = OverridesParser.create().parse_overrides([f"{key}={value}" for key, value in kept.items()]) + given
    varied = {
        override.get_key_element().lstrip("+"): str(override.get_value_string())
        for override in overrides
        if override.is_sweep_override()
    }
    return Plan(str(config.name), varied, overrides, sweeper.get("n_trials"), threads_of(config.hydra.launcher))


def _first(override: Override) -> str:
    """The override itself, or with the first value of a sweep."""
    if not override.is_sweep_override():
        return override.input_line or ""
    value: Any = override.value()
    first = next(override.sweep_string_iterator()) if override.is_discrete_sweep() else value.start
    return f"{override.get_key_element()}={first}"


def combinations(plan: Plan) -> list[list[str]]:
    """Overrides of params.yaml for each trial of a grid; [] for a sweeper that searches."""
    if plan.trials is not None:
        return []
    own = [item for item in plan.overrides if not str(item.key_or_group).startswith(("hydra", "name", "objectives"))]
    return BasicSweeper.split_arguments(own, None)[0]


def print_plan(plan: Plan, stages: Stages, finished: Sequence[bool]) -> None:
    """How often each stage runs, at most, and for how long."""
    console = Console()
    jobs = [job for job, done in zip(combinations(plan), finished, strict=True) if not done]
    count = len(jobs) if plan.trials is None else plan.trials
    console.print(f"Sweep [bold]{plan.name}[/]: {count} trials to run, {sum(finished)} finished")
    for key, values in plan.varied.items():
        console.print(f"  {key}: {values}")
    table = Table("Stage", "Runs", "From the cache", "Seconds each", box=None, header_style="dim", pad_edge=False)
    times, total, unknown = typical_seconds(), 0.0, list[str]()
    always = ("configure", "probe")
    for name, sections in stages.sections.items():
        relevant = [key for key in plan.varied if name not in stages.shared([key])]
        if name in always:
            runs = count
        elif not relevant:
            runs = min(count, 1)
        elif plan.trials is not None:
            runs = count
        else:
            runs = len({tuple(item for item in job if item.lstrip("+").split("=")[0] in relevant) for job in jobs})
        del sections
        each = times.get(name)
        total += runs * (each or 0.0)
        unknown += [] if name in times else [name]
        table.add_row(name, str(runs), str(count - runs), "not known" if each is None else f"{each:.0f}")
    console.print(table)
    if len(unknown) == len(stages.sections):
        console.print("No estimate: no trial was recorded here yet.")
    else:
        console.print(f"About {total / 60:.0f} minutes at the speed of the last trials, one after the other"
                      + (f", and what {', '.join(unknown)} take" if unknown else "") + ".")  # fmt: skip
    console.print("Stages that no trial changes run once at most: not at all where their results are in the cache.")
