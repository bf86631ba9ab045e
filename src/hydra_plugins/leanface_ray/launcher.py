"""Hydra's launcher over Ray: each trial is a Ray task, on this machine or on a cluster.

See docs/decisions/0012-ray-launcher.md for why this is not hydra-ray-launcher.
"""

import logging
import os
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from hydra.core.hydra_config import HydraConfig
from hydra.core.singleton import Singleton
from hydra.core.utils import JobReturn, configure_log, filter_overrides, run_job, setup_globals
from hydra.errors import HydraException
from hydra.plugins.launcher import Launcher
from hydra.types import HydraContext, TaskFunction
from omegaconf import DictConfig, open_dict

logger = logging.getLogger(__name__)

STORE_BYTES = 100 * 2**20
"""Memory for objects of a cluster that is started here: trials exchange a few numbers, not tensors."""


class RayLauncher(Launcher):
    """Hands the trials to a Ray cluster, and waits for what they return.

    Args:
        address: of a cluster to join; None starts one of this machine alone.
        num_cpus: processor cores of the cluster that is started here; None takes all.
        cpus_per_task: cores of each trial, and its threads.
        gpus_per_task: GPUs of each trial; a share, such as 0.5, is allowed.
    """

    def __init__(self, address: str | None, num_cpus: int | None, cpus_per_task: int, gpus_per_task: float) -> None:
        self.address, self.num_cpus = address, num_cpus
        self.resources = {"num_cpus": cpus_per_task, "num_gpus": gpus_per_task}

    def setup(self, *, hydra_context: HydraContext, task_function: TaskFunction, config: DictConfig) -> None:
        self.hydra_context, self.task_function, self.config = hydra_context, task_function, config

    def launch(self, job_overrides: Sequence[Sequence[str]], initial_job_idx: int) -> Sequence[JobReturn]:
        """Run them, as many at once as the cluster's cores allow."""
        ray = self._cluster()
        setup_globals()
        configure_log(self.config.hydra.hydra_logging, self.config.hydra.verbose)
        Path(str(self.config.hydra.sweep.dir)).mkdir(parents=True, exist_ok=True)
        # A trial that is lost with its node is not begun anew elsewhere: it is tried again when the sweep is.
        trial = ray.remote(max_retries=0, **self.resources)(_run)
        tasks: list[Any] = []
        for number, overrides in enumerate(job_overrides, initial_job_idx):
            logger.info("\t#%d : %s", number, " ".join(filter_overrides(overrides)))
            tasks.append(
                trial.remote(
                    str(Path.cwd()), number, list(overrides), self.hydra_context, self.config, self.task_function,
                    Singleton.get_state(),
                )
            )  # fmt: skip
        return ray.get(tasks)

    def _cluster(self) -> Any:
        """Join or start a Ray cluster.

        Raises:
            HydraException: Ray is not installed, or the cluster has no machine that is large enough.
        """
        ray: Any
        os.environ.setdefault("RAY_USAGE_STATS_ENABLED", "0")  # it would report to its makers
        try:
            import ray
        except ImportError:
            raise HydraException("hydra/launcher=ray needs Ray: pip install -c constraints.txt -e '.[ray]'") from None
        if not ray.is_initialized():
            own: dict[str, Any] = {"num_cpus": self.num_cpus, "object_store_memory": STORE_BYTES,
                                   "_node_ip_address": "127.0.0.1", "include_dashboard": False}  # fmt: skip
            ray.init(address=self.address or "local", **({} if self.address else own))
        nodes: list[dict[str, Any]] = ray.nodes()
        machines: list[dict[str, float]] = [node["Resources"] for node in nodes if node["Alive"]]
        if not any(_fits(machine, self.resources) for machine in machines):
            raise HydraException(
                f"a trial takes cpus_per_task={self.resources['num_cpus']}, "
                f"gpus_per_task={self.resources['num_gpus']}, but no machine of the Ray cluster has that: "
                + ", ".join(
                    f"{machine.get('CPU', 0):g} CPUs and {machine.get('GPU', 0):g} GPUs" for machine in machines
                )
            )
        return ray


def _fits(node: dict[str, float], task: dict[str, float]) -> bool:
    return node.get("CPU", 0) >= task["num_cpus"] and node.get("GPU", 0) >= task["num_gpus"]


def _run(
    project: str, number: int, overrides: list[str], hydra_context: HydraContext, config: DictConfig,
    task_function: TaskFunction, singletons: dict[Any, Any],
) -> JobReturn:  # fmt: skip
    """Run one trial, in a process of Ray's."""
    try:
        os.chdir(project)
    except OSError as error:
        raise HydraException(
            f"{os.uname().nodename} cannot enter the project's folder ({error}): all machines of the cluster must "
            "share it, under the same path."
        ) from None
    setup_globals()
    Singleton.set_state(singletons)
    job = hydra_context.config_loader.load_sweep_config(config, overrides)
    with open_dict(job):
        job.hydra.job.id, job.hydra.job.num = f"{job.hydra.job.name}_{number}", number
    HydraConfig.instance().set_config(job)
    return run_job(
        task_function=task_function, config=job, job_dir_key="hydra.sweep.dir", job_subdir_key="hydra.sweep.subdir",
        hydra_context=hydra_context,
    )  # fmt: skip
