"""Hydra's sweeper over Optuna: several objectives, failed trials, and a study that goes on where it stopped.

See docs/decisions/0007-optuna-sweeper.md for why this is not hydra-optuna-sweeper.
"""

import logging
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal

from hydra.core.config_store import ConfigStore
from hydra.core.override_parser.overrides_parser import OverridesParser
from hydra.core.override_parser.types import (
    ChoiceSweep,
    IntervalSweep,
    Override,
    RangeSweep,
    Transformer,
)
from hydra.core.plugins import Plugins
from hydra.errors import HydraException
from hydra.plugins.launcher import Launcher
from hydra.plugins.sweeper import Sweeper
from hydra.types import HydraContext, TaskFunction
from omegaconf import DictConfig

logger = logging.getLogger(__name__)


@dataclass
class OptunaConf:
    """What conf/sweep/ may set below hydra.sweeper.

    Attributes:
        directions: minimize or maximize, of each objective in turn.
        n_trials: that finish or fail, those of earlier runs of the same study included.
        n_jobs: asked for at once, and handed to the launcher together.
        sampler: tpe, nsga2 or random.
        params: as for the basic sweeper; interval(0.3, 0.7) draws from a range, tag(log, interval(...)) on a log scale.
    """

    _target_: str = "hydra_plugins.leanface_optuna.sweeper.OptunaSweeper"
    directions: list[str] = field(default_factory=lambda: ["minimize"])
    n_trials: int = 20
    n_jobs: int = 1
    sampler: str = "tpe"
    seed: int | None = 0
    params: dict[str, Any] = field(default_factory=dict[str, Any])


class OptunaSweeper(Sweeper):
    """Asks Optuna for parameters, runs them, tells it what came out."""

    def __init__(
        self,
        directions: Sequence[Literal["minimize", "maximize"]],
        n_trials: int,
        n_jobs: int,
        sampler: str,
        seed: int | None,
        params: Mapping[str, Any],
    ) -> None:
        self.directions, self.n_trials, self.n_jobs = list(directions), n_trials, n_jobs
        self.sampler, self.seed, self.params = sampler, seed, params or {}
        self.launcher: Launcher | None = None

    def setup(self, *, hydra_context: HydraContext, task_function: TaskFunction, config: DictConfig) -> None:
        self.config, self.hydra_context = config, hydra_context
        self.launcher = Plugins.instance().instantiate_launcher(
            hydra_context=hydra_context, task_function=task_function, config=config
        )

    def sweep(self, arguments: list[str]) -> None:
        """Run until the study has `n_trials`."""
        import optuna

        assert self.launcher is not None
        assert self.hydra_context is not None
        assert self.config is not None
        parser = OverridesParser.create(config_loader=self.hydra_context.config_loader)
        given = parser.parse_overrides([*(f"{key}={value}" for key, value in self.params.items()), *arguments])
        overrides = {override.get_key_element(): override for override in given}  # the command line's come last
        space = {key: _distribution(override) for key, override in overrides.items() if override.is_sweep_override()}
        fixed = [item for key, override in overrides.items() if key not in space and (item := override.input_line)]
        study = self._study(Path(str(self.config.hydra.sweep.dir)))
        number, done = 0, _done(study)
        while done < self.n_trials:
            trials = [study.ask(space) for _ in range(min(self.n_jobs, self.n_trials - done))]
            jobs = [[*fixed, *(f"{key}={value}" for key, value in trial.params.items())] for trial in trials]
            self.validate_batch_is_legal(jobs)
            results = self.launcher.launch(jobs, initial_job_idx=number)
            number += len(jobs)
            for trial, result in zip(trials, results, strict=True):
                returned: Any = result.return_value  # raises what the job raised
                values: list[float] = list(returned) if isinstance(returned, tuple) else [returned]  # pyright: ignore[reportUnknownArgumentType]
                if len(values) != len(self.directions):
                    raise HydraException(
                        f"{len(values)} objectives, but {len(self.directions)} directions: give "
                        "hydra.sweeper.directions one for each of `objectives`."
                    )
                if any(math.isnan(value) for value in values):
                    study.tell(trial, state=optuna.trial.TrialState.FAIL)
                else:
                    study.tell(trial, values)
            done = _done(study)
        for best in study.best_trials:
            logger.info("not dominated: %s -> %s", best.params, best.values)

    def _study(self, folder: Path) -> Any:
        """Open the study in this folder; what a killed run left unfinished is asked for again."""
        import optuna
        from optuna.storages.journal import JournalFileBackend

        optuna.logging.set_verbosity(optuna.logging.WARNING)
        samplers: dict[str, Any] = {
            "tpe": optuna.samplers.TPESampler,
            "nsga2": optuna.samplers.NSGAIISampler,
            "random": optuna.samplers.RandomSampler,
        }
        if self.sampler not in samplers:
            raise HydraException(f"hydra.sweeper.sampler {self.sampler!r} is none of {', '.join(samplers)}")
        folder.mkdir(parents=True, exist_ok=True)
        study = optuna.create_study(
            storage=optuna.storages.JournalStorage(JournalFileBackend(str(folder / "optuna.journal"))),
            study_name="sweep",
            directions=self.directions,
            load_if_exists=True,
        )
        # A study that goes on must not draw what it drew at first.
        seed = None if self.seed is None else self.seed + len(study.trials)
        study.sampler = samplers[self.sampler](seed=seed)
        for trial in study.get_trials(states=(optuna.trial.TrialState.RUNNING,)):
            study.enqueue_trial(trial.params, user_attrs={AGAIN: True})
            study.tell(trial.number, state=optuna.trial.TrialState.FAIL)
        return study


AGAIN = "again"
"""Mark of a trial in place of one that a killed run left, which then counts for nothing."""


def _done(study: Any) -> int:
    trials = study.trials
    return sum(trial.state.is_finished() for trial in trials) - sum(AGAIN in trial.user_attrs for trial in trials)


def _distribution(override: Override) -> Any:
    """Return Optuna's form of Hydra's choice, range or interval."""
    from optuna.distributions import CategoricalDistribution, FloatDistribution, IntDistribution

    value: Any = override.value()
    if override.is_choice_sweep():
        assert isinstance(value, ChoiceSweep)
        return CategoricalDistribution([str(item) for item in override.sweep_iterator(Transformer.encode)])
    log = "log" in value.tags
    if override.is_range_sweep():
        assert isinstance(value, RangeSweep)
        assert value.start is not None
        assert value.stop is not None
        if isinstance(value.start, int) and isinstance(value.stop, int) and isinstance(value.step, int):
            return IntDistribution(value.start, value.stop - 1, log=log, step=value.step)
        return FloatDistribution(value.start, value.stop, log=log, step=None if log else value.step)
    assert override.is_interval_sweep()
    assert isinstance(value, IntervalSweep)
    return FloatDistribution(float(value.start or 0.0), float(value.end or 0.0), log=log)


ConfigStore.instance().store(group="hydra/sweeper", name="optuna", node=OptunaConf, provider="leanface")
