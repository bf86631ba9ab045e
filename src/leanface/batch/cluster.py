"""The machines of a Ray cluster: checked, and driven by Ray Data.

Ray Data asks for chunks only as fast as workers take them, and gives those of a worker that died to another one. It
does not work through Ray's client (ray://), so what drives it is an actor on the cluster.
"""

import pickle
import time
from collections.abc import Iterator
from typing import Any

from leanface.batch.chunks import Chunk, chunks
from leanface.batch.storage import Storage
from leanface.batch.worker import Job, Outcome, Worker, check
from leanface.cluster import machines, room
from leanface.errors import ArtifactError, ConfigError, LeanFaceError, reason

CALLS = 2
"""Chunks that a worker has at a time: while one waits for the storage, the other computes."""

RETRIES = 3
"""How often a chunk goes to another worker after its own has died: some photo may be what kills them."""

TOGETHER_S = 0.2
"""How long outcomes are collected before they go, together, to whoever started this, who may be far away."""

CONTINUE = "What is finished stays; the same command does the rest."


def check_machines(ray: Any, job: Job) -> int:
    """Let each machine check what it needs, and return how many workers there is room for.

    Raises:
        ConfigError: some machine cannot do its part, or none is large enough.
    """
    from ray.util.scheduling_strategies import NodeAffinitySchedulingStrategy

    found = machines(ray)
    workers = room(found, "a worker (--threads)", job.cores, job.gpus)
    tasks: list[tuple[str, Any]] = []
    for machine in found:
        there = NodeAffinitySchedulingStrategy(machine.node, soft=False)
        task = ray.remote(num_cpus=0, max_retries=0, scheduling_strategy=there)(check)
        tasks.append((machine.address, task.remote(job)))
    for address, task in tasks:
        try:
            problem = ray.get(task)
        except ray.exceptions.RayError as error:
            lines = [line for line in str(error).splitlines() if line.strip()]
            problem = f"it cannot run LeanFace, which each machine needs ({lines[-1].strip() if lines else error})."
        if problem is not None:
            raise ConfigError(f"{address}: {problem}")
    return workers


def outcomes(ray: Any, job: Job, workers: int) -> Iterator[Outcome]:
    """Reconstruct everything, and yield what becomes of each chunk, in any order; the last has no photos.

    Raises:
        ArtifactError: the results so far cannot be read, or the cluster is gone.
    """
    driver = ray.remote(num_cpus=0)(Driver).remote(job, workers)
    while True:
        try:
            some: list[Outcome] = ray.get(driver.take.remote())
        except (ray.exceptions.RayError, ConnectionError) as error:
            cause = getattr(error, "cause", None)
            if isinstance(cause, LeanFaceError):
                raise cause from None
            raise ArtifactError(f"the cluster ended this run ({reason(error)}). {CONTINUE}") from error
        if not some:
            return
        yield from some


class Driver:
    """Runs Ray Data in a process of the cluster."""

    def __init__(self, job: Job, workers: int) -> None:
        """Prepare; nothing is done yet."""
        self._outcomes = _outcomes(job, workers)

    def take(self) -> list[Outcome]:
        """Return what becomes of the next chunk and of those right after it; nothing at the end."""
        taken: list[Outcome] = []
        end = time.monotonic() + TOGETHER_S
        for outcome in self._outcomes:
            taken.append(outcome)
            if time.monotonic() > end:
                break
        return taken


def _outcomes(job: Job, workers: int) -> Iterator[Outcome]:
    tables = _dataset(job, workers).iter_batches(batch_size=None, batch_format="pyarrow", prefetch_batches=0)
    for table in tables:
        yield from map(pickle.loads, table["outcome"].to_pylist())


def _dataset(job: Job, workers: int) -> Any:
    """Return a dataset that has a row for each chunk's outcome."""
    import pyarrow  # pyright: ignore[reportMissingTypeStubs]
    import ray.data
    from ray.data import ActorPoolStrategy, DataContext, Datasource, ReadTask
    from ray.data.block import BlockMetadata

    from leanface.batch.table import finished

    pa: Any = pyarrow
    read: Any = ray.data.read_datasource  # pyright: ignore[reportUnknownVariableType]
    context: Any = DataContext.get_current()
    context.enable_progress_bars = False
    context.target_max_block_size = context.target_min_block_size = 1  # a block per chunk
    context.max_errored_blocks = -1  # chunks that killed every worker; they are missing in the total
    out = Storage(job.out)
    # Once, and not by the task that lists photos: if that is done again, it must give the same chunks.
    done = finished(out)

    def listed() -> Iterator[Any]:
        try:
            photos = Storage(job.photos)
            for chunk in chunks(photos, done, job.chunk, out.start_within(photos)):
                yield pa.table({"chunk": [pickle.dumps(chunk)]})
        except Exception as error:
            yield pa.table({"chunk": [pickle.dumps(Chunk((), problem=reason(error)))]})

    class Listing(Datasource):
        def estimate_inmemory_data_size(self) -> int | None:
            return None

        def get_read_tasks(self, *_: Any, **__: Any) -> list[ReadTask]:
            return [ReadTask(listed, BlockMetadata(num_rows=None, size_bytes=None, input_files=None, exec_stats=None))]

    pool = ActorPoolStrategy(min_size=1, initial_size=workers, max_size=workers, max_concurrent_calls_per_actor=CALLS)
    return read(Listing(), override_num_blocks=1, ray_remote_args={"num_cpus": 0}).map_batches(
        Worker, fn_constructor_args=(job,), batch_size=1, batch_format="pyarrow", compute=pool, num_cpus=job.cores,
        num_gpus=job.gpus, max_task_retries=RETRIES,
    )  # fmt: skip
