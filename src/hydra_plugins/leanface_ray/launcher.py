"""Hydra's launcher over Ray: each trial is a Ray task, on this machine or on a cluster.

See docs/decisions/0012-ray-launcher.md for why this is not hydra-ray-launcher.
"""

import contextlib
import logging
import os
import tempfile
from collections.abc import Generator, Sequence
from pathlib import Path
from typing import Any

from hydra.core.hydra_config import HydraConfig
from hydra.core.singleton import Singleton
from hydra.core.utils import JobReturn, configure_log, filter_overrides, run_job, setup_globals
from hydra.errors import HydraException
from hydra.plugins.launcher import Launcher
from hydra.types import HydraContext, TaskFunction
from omegaconf import DictConfig, open_dict

from leanface.cluster import join, machines, room

logger = logging.getLogger(__name__)

RETRIES = 3
"""How often a trial goes on elsewhere after its node has died."""

KEEPALIVE_MS = {"RAY_grpc_client_keepalive_time_ms": "60000", "RAY_grpc_client_keepalive_timeout_ms": "60000"}
"""When a call to a machine fails that has lost its power or its network and cannot say so: by Ray's default after seven
minutes. Not before the head has missed the machine, which takes it a minute: the trial could be sent there again."""


class RayLauncher(Launcher):
    """Hands the trials to a Ray cluster, and waits for what they return.

    Args:
        address: of a cluster to join; None starts one of this machine alone.
        num_cpus: processor cores of the cluster that is started here; None takes all.
        cpus_per_task: cores of each trial, and its threads.
        gpus_per_task: GPUs of each trial; a share, such as 0.5, is allowed.
        shared_folder: whether all machines have the project's folder under the same path; else what a trial needs
            travels through Ray.
    """

    def __init__(
        self, address: str | None, num_cpus: int | None, cpus_per_task: int, gpus_per_task: float, shared_folder: bool
    ) -> None:
        self.address, self.num_cpus, self.shared_folder = address, num_cpus, shared_folder
        self.cpus, self.gpus = cpus_per_task or 1, gpus_per_task

    def setup(self, *, hydra_context: HydraContext, task_function: TaskFunction, config: DictConfig) -> None:
        self.hydra_context, self.task_function, self.config = hydra_context, task_function, config

    def launch(self, job_overrides: Sequence[Sequence[str]], initial_job_idx: int) -> Sequence[JobReturn]:
        """Run them, as many at once as the cluster's cores allow.

        Raises:
            ConfigError: Ray is not installed, the cluster is away, or has no machine that is large enough.
        """
        if not self.shared_folder:  # else no trial goes on elsewhere
            for name, milliseconds in KEEPALIVE_MS.items():
                os.environ.setdefault(name, milliseconds)
        ray = join(self.address, self.num_cpus, show_output=True)
        room(machines(ray), "a trial (cpus_per_task, gpus_per_task)", self.cpus, self.gpus)
        setup_globals()
        configure_log(self.config.hydra.hydra_logging, self.config.hydra.verbose)
        Path(str(self.config.hydra.sweep.dir)).mkdir(parents=True, exist_ok=True)
        depot = None if self.shared_folder else self._depot(ray)
        # In a shared folder a trial that is lost with its node may still run there: it is tried again when the sweep
        # is. Otherwise another node goes on with the stages that came home.
        retries = 0 if depot is None else RETRIES
        trial = ray.remote(max_retries=retries, num_cpus=self.cpus, num_gpus=self.gpus)(_run)
        environment, tasks = _environment(), list[Any]()
        for number, overrides in enumerate(job_overrides, initial_job_idx):
            logger.info("\t#%d : %s", number, " ".join(filter_overrides(overrides)))
            job = self.hydra_context.config_loader.load_sweep_config(self.config, list(overrides))
            with open_dict(job):
                job.hydra.job.id, job.hydra.job.num = f"{job.hydra.job.name}_{number}", number
            tasks.append(
                trial.remote(
                    str(Path.cwd()), depot, environment, job, self.hydra_context, self.task_function,
                    Singleton.get_state(),
                )
            )  # fmt: skip
        return ray.get(tasks)

    def _depot(self, ray: Any) -> Any:
        """Start the depot here: an actor that has this machine's folder."""
        from ray.util.scheduling_strategies import NodeAffinitySchedulingStrategy

        from leanface.sweep.travel import Depot

        here = NodeAffinitySchedulingStrategy(ray.get_runtime_context().get_node_id(), soft=False)
        return (
            ray.remote(num_cpus=0, max_concurrency=4, scheduling_strategy=here)(Depot)
            .remote(str(Path.cwd()), str(self.config.hydra.sweep.dir))
        )  # fmt: skip


def _environment() -> dict[str, str]:
    """Return what trials elsewhere need of this environment: who commits, and an MLflow that they can reach, or none.

    Without one, what is for MLflow comes home and is delivered from here.
    """
    own = {name: value for name, value in os.environ.items() if name.startswith("GIT_")}
    uri = os.environ.get("MLFLOW_TRACKING_URI", "")
    return own | {"MLFLOW_TRACKING_URI": uri if uri.startswith("http") else "nothing://"}


def _run(
    project: str, depot: Any, environment: dict[str, str], job: DictConfig, hydra_context: HydraContext,
    task_function: TaskFunction, singletons: dict[Any, Any],
) -> JobReturn:  # fmt: skip
    """Run one trial, in a process of Ray's: in the project's folder, or in a copy of it."""
    setup_globals()
    Singleton.set_state(singletons)
    HydraConfig.instance().set_config(job)
    with _shared(project) if depot is None else _away(depot, environment, Path(project).name, job):
        return run_job(
            task_function=task_function, config=job, job_dir_key="hydra.sweep.dir",
            job_subdir_key="hydra.sweep.subdir", hydra_context=hydra_context,
        )  # fmt: skip


@contextlib.contextmanager
def _shared(project: str) -> Generator[None]:
    try:
        os.chdir(project)
    except OSError as error:
        raise HydraException(
            f"{os.uname().nodename} cannot enter the project's folder ({error}): all machines of the cluster must "
            "share it, under the same path, or set hydra.launcher.shared_folder=false."
        ) from None
    yield


@contextlib.contextmanager
def _away(depot: Any, environment: dict[str, str], name: str, job: DictConfig) -> Generator[None]:
    import ray

    from leanface.sweep.travel import away

    os.environ.update(environment)
    node = ray.get_runtime_context().get_node_id()[:12]
    copy = Path(tempfile.gettempdir()) / f"leanface-sweeps-{os.getuid()}" / f"{name}-{node}"

    def call(method: str, *arguments: Any) -> Any:
        return ray.get(getattr(depot, method).remote(*arguments))

    with away(call, copy, Path(str(job.hydra.sweep.dir))):
        yield
