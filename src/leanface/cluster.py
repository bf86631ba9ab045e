"""A Ray cluster that is joined, or started of this machine alone, and what its machines have."""

import logging
import math
import os
import socket
from collections.abc import Generator
from contextlib import contextmanager
from typing import Any, NamedTuple
from urllib.parse import urlsplit

from leanface.device import usable_cores
from leanface.errors import ConfigError, reason

STORE_BYTES = 100 * 2**20
"""Memory for objects of a cluster that is started here: names and numbers go through Ray, not tensors."""


CLIENT_PORT = 10001
"""Where a cluster's head listens for ray://, unless it is told otherwise."""

ANSWER_S = 5.0
"""How long a head may take to accept a connection."""


class Machine(NamedTuple):
    """A machine of a cluster, and what it has for all tasks together.

    Attributes:
        node: Ray's name of it.
    """

    node: str
    address: str
    cpus: float
    gpus: float


def join(address: str | None, cores: int | None = None, *, show_output: bool = False) -> Any:
    """Join a Ray cluster, or start one of this machine alone; return Ray. A process in a cluster stays in that one.

    Ray leaves the cluster, and ends one that was started here, when the process ends.

    Args:
        cores: of a cluster that is started here; None takes all that this process may use.
        show_output: whether what tasks print appears here.

    Raises:
        ConfigError: Ray is not installed, or no cluster answers.
    """
    os.environ.setdefault("RAY_USAGE_STATS_ENABLED", "0")  # it would report to its makers
    os.environ.setdefault("RAY_raylet_start_wait_time_s", "120")  # for machines that are busy
    ray = _ray()
    if ray.is_initialized():
        return ray
    refusal = (
        "; nothing was run. Start one with `ray start --head`; its RAY_AUTH_MODE and RAY_AUTH_TOKEN must be set here, "
        "too, if it asks for them."
    )
    if address is not None and address.startswith("ray://"):
        try:  # Ray itself waits for a minute
            url = urlsplit(address)
            socket.create_connection((url.hostname or "", url.port or CLIENT_PORT), ANSWER_S).close()
        except (OSError, ValueError) as error:
            raise ConfigError(f"no Ray cluster answers at {address} ({reason(error)}){refusal}") from None
    own = {"num_cpus": cores or usable_cores(), "object_store_memory": STORE_BYTES, "_node_ip_address": "127.0.0.1",
           "include_dashboard": False}  # fmt: skip
    try:
        ray.init(
            address=address or "local", log_to_driver=show_output, logging_level=logging.ERROR,
            **({} if address else own),
        )  # fmt: skip
    except Exception as error:  # Ray raises bare ones, too
        raise ConfigError(f"no Ray cluster answers at {address or 'this machine'} ({reason(error)}){refusal}") from None
    return ray


@contextmanager
def joined(address: str | None, cores: int | None = None) -> Generator[Any]:
    """Be in a cluster, see `join`, which is left afterwards unless this process was in it before; yield Ray."""
    before = _ray().is_initialized()
    ray = join(address, cores)
    try:
        yield ray
    finally:
        if not before:
            ray.shutdown()


def machines(ray: Any) -> list[Machine]:
    """List the machines that are alive."""
    alive = [(node, node["Resources"]) for node in ray.nodes() if node["Alive"]]
    return [
        Machine(node["NodeID"], node["NodeManagerAddress"], has.get("CPU", 0), has.get("GPU", 0)) for node, has in alive
    ]


def room(machines: list[Machine], task: str, cpus: int, gpus: float) -> int:
    """Count how many tasks fit on these machines at once.

    Args:
        task: what it is, for the error.
        gpus: of each; a share of one is allowed.

    Raises:
        ConfigError: not a single one does.
    """
    count = sum(int(min(each.cpus // cpus, each.gpus // gpus if gpus else math.inf)) for each in machines)
    if not count:
        found = ", ".join(f"{each.cpus:g} CPUs and {each.gpus:g} GPUs" for each in machines)
        raise ConfigError(f"{task} takes {cpus} CPUs and {gpus:g} GPUs, but no machine has that: {found}")
    return count


def _ray() -> Any:
    try:
        import ray
    except ModuleNotFoundError:
        raise ConfigError(
            "Ray is not installed: pip install 'leanface[ray]' for sweeps, 'leanface[batch]' for photos."
        ) from None
    return ray
