"""Measure every network in every runtime on this machine: latency, throughput, memory, energy, size; and end to end."""

import contextlib
import gc
import itertools
import math
import sys
import time
from collections.abc import Callable, Generator, Mapping, Sequence
from concurrent.futures import ProcessPoolExecutor
from concurrent.futures.process import BrokenProcessPool
from multiprocessing import get_context
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import psutil

from leanface.catalog import BASELINE, BASELINE_RUNTIMES, RUNTIMES, VARIANTS
from leanface.config import Benchmark
from leanface.errors import BackendError
from leanface.metrics.counters import energy_counters, energy_per_call_j, gpu_memory_bytes
from leanface.metrics.latency import Timing, measure_latency
from leanface.metrics.measurements import Measurement
from leanface.runtime import Coefficients, Images, Runtime, files_of, open_runtime, pipelined

END_TO_END = {
    "all": ((BASELINE, "torch"), ("quantized_int8", "openvino")),
    "gpu": ((BASELINE, "torch_cuda"), ("quantized_int8", "triton_int8")),
}
"""By `Benchmark.runtimes`: the baseline, and the fastest that is sure to run."""

SHARES = {"open": 0.55, "time": 0.75, "energy": 0.85, "memory": 1.0}
"""When, as a share of `Benchmark.seconds`, each part begins nothing more."""

WINDOW_SECONDS = 0.02
"""A window's least length: a few calls of a tenth of a millisecond say little."""

LANDMARKS = ("landmarks", "mtcnn")
"""Stands for a variant and a runtime in the row of the face detector, which is the same for all networks."""


class Entry(NamedTuple):
    """What to measure: a file in a runtime, with each of these numbers of streams."""

    variant: str
    runtime: str
    path: Path
    streams: tuple[int, ...]


class Key(NamedTuple):
    variant: str
    runtime: str
    batch: int
    streams: int = 1
    copies: bool = False


class Footprint(NamedTuple):
    """What a fresh process needs to get a network ready and run it; see `Measurement`."""

    cold_start_ms: float | None
    memory_mb: float
    device_memory_mb: float | None


def plan(settings: Benchmark) -> list[Entry]:
    """List what is to be measured, the baseline first.

    Every evaluated variant in every runtime that computes in its precision; or on a GPU alone, where besides the
    baseline's runtime only FP16 and INT8 are of interest, but of the teacher too. Deployed variants run with all of
    `settings.streams`.
    """
    gpu_only = settings.runtimes == "gpu"
    entries: list[Entry] = []
    for name, runtime in RUNTIMES.items():
        if gpu_only and not runtime.on_gpu:
            continue
        for variant, chosen in VARIANTS.items():
            path = files_of(variant).get(name)
            planned = chosen.evaluated or (gpu_only and runtime.reads != "engine")
            wasted = gpu_only and chosen.precision == "fp32" and name not in BASELINE_RUNTIMES
            if path is not None and planned and not wasted:
                entries.append(Entry(variant, name, path, settings.streams if chosen.concurrent else (1,)))
    return sorted(entries, key=lambda entry: (entry.runtime not in BASELINE_RUNTIMES, entry.variant != BASELINE))


def benchmark_networks(
    entries: Sequence[Entry], settings: Benchmark, image_size: int, baseline: str = BASELINE
) -> list[Measurement]:
    """Measure `entries` at every batch size, in turns; network only, and on a GPU with the copies as well.

    Args:
        baseline: the variant that speed-ups are relative to, in the first of `BASELINE_RUNTIMES` that runs it.
    """
    start = time.monotonic()
    until = {part: start + share * (settings.seconds or math.inf) for part, share in SHARES.items()}
    late = f"benchmark.seconds ({settings.seconds}) did not suffice for it."
    rows: dict[Key, Measurement] = {}
    calls: dict[Key, Callable[[], object]] = {}
    pipelines: dict[Key, _Pipeline] = {}
    with contextlib.ExitStack() as stack:
        for entry, streams in _each(entries):
            keys = _keys(entry, streams, settings)
            try:
                if time.monotonic() > until["open"]:
                    raise BackendError(late)
                if entry.runtime == "tensorrt" and not entry.path.exists():
                    from leanface.runtime.engine import load_tensorrt

                    load_tensorrt()  # says what is missing to build an engine here
                opened = stack.enter_context(open_runtime(entry.runtime, entry.path, settings.threads, streams))
            except BackendError as error:
                rows |= {key: _not_run(key, entry, error) for key in keys}
                continue
            for key in keys:
                try:
                    for stream in range(streams):  # each allocates, or captures, at its first run
                        opened.run(noise_images(key.batch, image_size, entry.runtime), stream)
                    call = _call(opened, key, image_size)
                    if isinstance(call, _Pipeline):
                        pipelines[key] = call
                        stack.callback(call.drain)
                    call()
                    if key in pipelines:
                        pipelines[key].drain()  # the next batch size runs in the same streams
                except BackendError as error:  # an engine's profile or a GPU's memory may be too small for it
                    rows[key] = _not_run(key, entry, error)
                else:
                    calls[key] = call
        failures: dict[Key, BackendError] = {}
        calls = {key: _noting(failures, key, call) for key, call in calls.items()}
        timings = _measure(calls, _baselines(calls, baseline), settings, until["time"], pipelines)
        energies = {key: _energy(key, call, settings, until["energy"]) for key, call in calls.items()}
        calls.clear()
    for entry, streams in _each(entries):
        for key in failures.keys() & _keys(entry, streams, settings):
            rows[key] = _not_run(key, entry, failures[key])
            del timings[key]
    if "torch" in sys.modules and (cuda := sys.modules["torch"].cuda).is_initialized():
        cuda.empty_cache()  # the fresh processes need the room
    for entry, streams in _each(entries):
        keys = [key for key in _keys(entry, streams, settings) if key in timings]
        footprints: dict[int, dict[str, Any]] = {}
        if keys and time.monotonic() < until["memory"]:
            batches = sorted({key.batch for key in keys})
            try:
                fresh = measure_fresh(entry, streams, batches, settings, image_size)
                footprints = {batch: footprint._asdict() for batch, footprint in fresh.items()}
            except (BackendError, BrokenProcessPool) as error:
                footprints = {batch: {"memory_reason": str(error)} for batch in batches}
        for key in keys:
            footprint = footprints.get(key.batch, {"memory_reason": late})
            measured = {**_numbers(key, timings[key]), **footprint, **energies[key]}
            rows[key] = Measurement(**key._asdict(), **measured, size_bytes=_size_bytes(entry.path))
    return [rows[key] for entry, streams in _each(entries) for key in _keys(entry, streams, settings)]


def benchmark_end_to_end(
    settings: Benchmark, journey: Callable[[Runtime], object], before: Callable[[], object]
) -> list[Measurement]:
    """Measure all that is done with an input, by each of `END_TO_END`; and, in its own row, what comes before it.

    Args:
        journey: goes from an input to a result with a network.
        before: what is the same for all networks, and not part of the journey.
    """
    rows: dict[Key, Measurement] = {}
    with contextlib.ExitStack() as stack:
        calls: dict[Key, Callable[[], object]] = {Key(*LANDMARKS, 1): before}
        for variant, runtime in END_TO_END[settings.runtimes]:
            key = Key(variant, runtime, 1, copies=RUNTIMES[runtime].on_gpu)
            entry = Entry(variant, runtime, files_of(variant)[runtime], (1,))
            try:
                opened = stack.enter_context(open_runtime(runtime, entry.path, settings.threads))
            except BackendError as error:
                rows[key] = _not_run(key, entry, error)
            else:
                calls[key] = lambda opened=opened: journey(opened)
        timings = _measure(calls, _baselines(calls, BASELINE), settings)
    rows = {key: Measurement(**key._asdict(), **_numbers(key, timing)) for key, timing in timings.items()} | rows
    return list(rows.values())


def measure_fresh(
    entry: Entry, streams: int, batches: Sequence[int], settings: Benchmark, image_size: int
) -> dict[int, Footprint]:
    """What a fresh process needs to hold a network ready, having run it in every stream, by batch size.

    Memory (10^6 bytes) is the growth of its private memory from just before the network is opened: weights,
    activations and whatever the runtime makes of them, but not the libraries' code, which all processes share; on a
    GPU likewise, without the CUDA context.
    Batches run from the smallest to the largest, so each one's memory includes the smaller ones'.
    """
    # Forked from a server that has imported the libraries, a process starts at once and has run nothing yet.
    context = get_context("forkserver")
    context.set_forkserver_preload([__name__])
    with ProcessPoolExecutor(1, mp_context=context) as process:
        return process.submit(_footprints, entry, streams, batches, settings.threads, image_size).result()


def _footprints(
    entry: Entry, streams: int, batches: Sequence[int], threads: int, image_size: int
) -> dict[int, Footprint]:
    grown: dict[int, Footprint] = {}
    inputs = {batch: noise_images(batch, image_size, entry.runtime) for batch in sorted(batches)}
    if on_gpu := RUNTIMES[entry.runtime].on_gpu:
        import torch

        torch.zeros(1, device="cuda")  # what every process on a GPU needs of it is not the network's
    before, device_before = _private_bytes(), gpu_memory_bytes() if on_gpu else None
    start = time.perf_counter()
    with open_runtime(entry.runtime, entry.path, threads, streams) as network:
        for batch, images in inputs.items():
            network.run(images)
            cold_start_ms = None if grown else 1e3 * (time.perf_counter() - start)
            for stream in range(1, streams):
                network.run(images, stream)
            device = gpu_memory_bytes() if device_before is not None else None
            grown[batch] = Footprint(
                cold_start_ms,
                (_private_bytes() - before) / 1e6,
                None if device is None or device_before is None else (device - device_before) / 1e6,
            )
    return grown


def _private_bytes() -> int:
    gc.collect()
    memory: Any = psutil.Process().memory_info()
    return memory.rss - getattr(memory, "shared", 0)  # told on Linux only


def _each(entries: Sequence[Entry]) -> list[tuple[Entry, int]]:
    return [(entry, streams) for entry in entries for streams in entry.streams]


def _keys(entry: Entry, streams: int, settings: Benchmark) -> list[Key]:
    batches = settings.batches if streams == 1 else settings.concurrent_batches or settings.batches
    copies = (False,) if not RUNTIMES[entry.runtime].on_gpu else (False, True) if streams == 1 else (True,)
    return [Key(entry.variant, entry.runtime, batch, streams, copied) for batch in batches for copied in copies]


def _baselines(calls: dict[Key, Callable[[], object]], variant: str) -> dict[Key, Key]:
    """What each call is compared with: the variant at the same batch size, and with the copies where it has any."""
    compared: dict[Key, Key] = {}
    for key in calls:
        candidates = [
            Key(variant, runtime, key.batch, copies=key.copies and RUNTIMES[runtime].on_gpu)
            for runtime in BASELINE_RUNTIMES
        ]
        found = next((base for base in candidates if base in calls), None)
        if found is not None and (key.variant, key.runtime) != LANDMARKS:
            compared[key] = found
    return compared


def _measure(
    calls: dict[Key, Callable[[], object]],
    baselines: dict[Key, Key],
    settings: Benchmark,
    until: float = math.inf,
    pipelines: Mapping[Key, "_Pipeline"] | None = None,
) -> dict[Key, Timing]:
    flowing = pipelines or {}

    def drain(_: Key) -> None:
        for pipeline in flowing.values():
            pipeline.drain()

    return measure_latency(
        calls,
        warmup=settings.warmup,
        window=settings.window,
        windows_max=settings.windows_max,
        interval=settings.interval,
        baselines=baselines,
        in_flight={key: pipeline.in_flight for key, pipeline in flowing.items()},
        until=until,
        window_seconds=WINDOW_SECONDS,
        on_window=drain,
    )


class _Pipeline:
    """Gives the next result of a batch that is computed again and again in all streams; none goes on after `drain`."""

    def __init__(self, network: Runtime, images: Images) -> None:
        self.in_flight = 2 * network.streams
        """Or fewer: what is computed or waits ahead of a result."""
        self._network, self._images = network, images
        self._results: Generator[Coefficients] | None = None

    def __call__(self) -> None:
        if self._results is None:
            self._results = pipelined(self._network, itertools.repeat(self._images))
        next(self._results)

    def drain(self) -> None:
        if self._results is not None:
            self._results.close()
            self._results = None


def _noting(failures: dict[Key, BackendError], key: Key, call: Callable[[], object]) -> Callable[[], None]:
    """The call, until it fails: what was measured of the others is not lost."""

    def noting() -> None:
        if key not in failures:
            try:
                call()
            except BackendError as error:  # a GPU's memory may be full
                failures[key] = error

    return noting


def _energy(key: Key, call: Callable[[], object], settings: Benchmark, until: float) -> dict[str, Any]:
    """The fields of `Measurement` about energy."""
    if key.streams > 1 or key.copies:
        return {"energy_reason": "energy is counted with a single stream, without copies."}
    if key.batch not in (settings.batches[0], settings.batches[-1]):
        return {"energy_reason": "energy is counted at the smallest and at the largest batch."}
    if time.monotonic() > until:
        return {"energy_reason": f"benchmark.seconds ({settings.seconds}) did not suffice for it."}
    try:
        counters = energy_counters(gpu=RUNTIMES[key.runtime].on_gpu)
    except BackendError as error:
        return {"energy_reason": str(error)}
    energy_j = energy_per_call_j(counters, call, settings.energy_seconds)
    return {"energy_mj": 1e3 * energy_j / key.batch, "energy_source": counters[0].source}


def _call(network: Runtime, key: Key, image_size: int) -> Callable[[], object]:
    images = noise_images(key.batch, image_size, network.name)
    if key.streams > 1:
        return _Pipeline(network, images)
    if key.copies or not RUNTIMES[network.name].on_gpu:
        return lambda: network.run(images)
    return network.resident(images)


def noise_images(batch: int, image_size: int, runtime: str) -> Images:
    """Draw noise: the time does not depend on what is in the pictures.

    A GPU is given bytes, as crops are cut. The baseline gets float32, which the original's own pipeline copies to it.
    """
    generator = np.random.default_rng(0)
    if RUNTIMES[runtime].on_gpu and runtime not in BASELINE_RUNTIMES:
        return generator.integers(0, 256, (batch, image_size, image_size, 3), dtype=np.uint8)
    return generator.random((batch, 3, image_size, image_size), dtype=np.float32)


def _numbers(key: Key, timing: Timing) -> dict[str, Any]:
    return {
        "latency": timing.latency,
        "p90_ms": timing.p90_ms,
        "p95_ms": timing.p95_ms,
        "p99_ms": timing.p99_ms,
        "speedup": timing.speedup,
        "windows": timing.windows,
        "images_per_second": key.batch * timing.calls_per_second,
    }


def _not_run(key: Key, entry: Entry, error: BackendError) -> Measurement:
    return Measurement(**key._asdict(), not_run=str(error), size_bytes=_size_bytes(entry.path))


def _size_bytes(path: Path) -> int | None:
    """Return the size of a file, or of a bundle's files together; None if it is not there."""
    files = path.rglob("*") if path.is_dir() else [path]
    sizes = [file.stat().st_size for file in files if file.is_file()]
    return sum(sizes) if sizes else None


def headline(rows: Sequence[Measurement]) -> dict[str, float]:
    """Return the median latency of what ran on a single stream, as `VARIANT/RUNTIME/batch_N_ms`."""
    return {
        f"{row.variant}/{row.runtime}/batch_{row.batch}_ms": row.latency.value
        for row in rows
        if row.latency is not None and row.streams == 1 and not row.copies
    }


def baseline_runtime(rows: Sequence[Measurement], variant: str = BASELINE) -> str | None:
    """Name the runtime of what speed-ups are relative to; None if it did not run."""
    ran = {row.runtime for row in rows if row.variant == variant and row.ran}
    return next((runtime for runtime in BASELINE_RUNTIMES if runtime in ran), None)
