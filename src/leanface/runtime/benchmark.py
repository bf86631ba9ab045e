"""Every network in every runtime on this machine: latency, throughput, memory, size; and end to end."""

import contextlib
import gc
from collections.abc import Callable, Sequence
from concurrent.futures import ProcessPoolExecutor
from dataclasses import asdict, dataclass
from multiprocessing import get_context
from pathlib import Path
from typing import Any, Literal, NamedTuple

import numpy as np
import psutil
import torch
from jaxtyping import Float32, UInt8

from leanface import paths
from leanface.config import Benchmark
from leanface.data.alignment import align, to_input
from leanface.data.detector import FaceDetector
from leanface.errors import ArtifactError, BackendError
from leanface.face.camera import camera_from_model
from leanface.face.coefficients import split
from leanface.face.morphable_model import MorphableModel
from leanface.metrics.latency import Timing, measure_latency
from leanface.runtime import Runtime, open_runtime

FLOAT_BUNDLES = ("original_fp32", "distilled_fp32")
"""Variants that PyTorch runs as they are deployed; it would only simulate INT8 and FP16."""

PLAN: tuple[tuple[str, str, Path], ...] = (
    *((name, "torch", paths.BUNDLES[name]) for name in FLOAT_BUNDLES),
    *((name, "onnxruntime", paths.onnx_path(name)) for name in paths.VARIANTS),
    *((name, "openvino", paths.onnx_path(name)) for name in paths.VARIANTS),
    *((name, "tensorrt", paths.engine_path(name)) for name in paths.VARIANTS),
)
"""(variant, runtime, file) of everything to measure."""

END_TO_END = (("original_fp32", "torch"), ("quantized_int8", "openvino"))

LANDMARKS = ("landmarks", "mtcnn")
"""Stands for a variant and a runtime in the row of the face detector, which is the same for all networks."""


@dataclass(frozen=True)
class Row:
    """One measurement; what could not be run has a reason and no numbers."""

    variant: str
    runtime: str
    batch: int
    status: Literal["stable", "unstable", "not_run"]
    reason: str | None
    p50_ms: float | None = None
    p90_ms: float | None = None
    p95_ms: float | None = None
    p99_ms: float | None = None
    windows: int = 0
    spread: float | None = None
    images_per_second: float | None = None
    memory_mb: float | None = None
    size_bytes: int | None = None


class Key(NamedTuple):
    variant: str
    runtime: str
    batch: int


def benchmark_networks(settings: Benchmark, image_size: int) -> list[Row]:
    """Measure `PLAN` at every batch size, in turns; network only, host memory to host memory."""
    rows: dict[Key, Row] = {}
    calls: dict[Key, Callable[[], object]] = {}
    files = {(variant, runtime): path for variant, runtime, path in PLAN}
    with contextlib.ExitStack() as stack:
        for (variant, runtime), path in files.items():
            keys = [Key(variant, runtime, batch) for batch in settings.batches]
            try:
                opened = stack.enter_context(open_runtime(runtime, path, settings.threads))
            except BackendError as error:
                rows |= {key: Row(*key, "not_run", str(error), size_bytes=_size_bytes(path)) for key in keys}
                continue
            calls |= {key: _call(opened, key.batch, image_size) for key in keys}
        timings = _measure(calls, settings)
    for (variant, runtime), path in files.items():
        keys = [key for key in timings if (key.variant, key.runtime) == (variant, runtime)]
        memory = measure_memory(runtime, path, settings, image_size) if keys else {}
        rows |= {key: _row(key, timings[key], memory.get(key.batch), _size_bytes(path)) for key in keys}
    return [rows[Key(variant, runtime, batch)] for variant, runtime in files for batch in settings.batches]


def benchmark_end_to_end(
    settings: Benchmark, image_size: int, model: MorphableModel, photo: UInt8[np.ndarray, "H W 3"]
) -> list[Row]:
    """From a photo with known landmarks to vertices in the camera's frame; and, in its own row, finding them.

    Raises:
        ArtifactError: there is no face in the photo.
    """
    detector = FaceDetector()
    faces = detector.detect(photo)
    if not faces:
        raise ArtifactError("no face was found in the first of data.photos, which is benchmarked; list another first.")
    landmarks = faces[0].landmarks

    def reconstruct(network: Runtime) -> torch.Tensor:
        crop, _ = align(photo, landmarks, size=image_size)
        parts = split(torch.from_numpy(network.run(to_input(crop)[None])))
        vertices = model.vertices(parts.identity, parts.expression)
        return camera_from_model(vertices, parts.angles_rad, parts.translation)

    files = {(variant, runtime): path for variant, runtime, path in PLAN}
    with contextlib.ExitStack() as stack:
        calls: dict[Key, Callable[[], object]] = {Key(*LANDMARKS, 1): lambda: detector.detect(photo)}
        for name in END_TO_END:
            opened = stack.enter_context(open_runtime(name[1], files[name], settings.threads))
            calls[Key(*name, 1)] = lambda opened=opened: reconstruct(opened)
        timings = _measure(calls, settings)
    return [_row(key, timing, None, None) for key, timing in timings.items()]


def measure_memory(runtime: str, path: Path, settings: Benchmark, image_size: int) -> dict[int, float]:
    """Memory (10^6 bytes) that a fresh process needs to hold a network ready, having run it, by batch size.

    Counted is the growth of its private memory from just before the network is opened: weights, activations
    and whatever the runtime makes of them, but not the libraries' code, which all processes share.
    """
    # Forked from a server that has imported the libraries, a process starts at once and has run nothing yet.
    context = get_context("forkserver")
    context.set_forkserver_preload([__name__])
    with ProcessPoolExecutor(1, mp_context=context) as pool:
        return pool.submit(_memory_growth, runtime, path, settings, image_size).result()


def _memory_growth(runtime: str, path: Path, settings: Benchmark, image_size: int) -> dict[int, float]:
    before = _private_bytes()
    grown: dict[int, float] = {}
    with open_runtime(runtime, path, settings.threads) as network:
        for batch in sorted(settings.batches):
            network.run(_images(batch, image_size))
            grown[batch] = (_private_bytes() - before) / 1e6
    return grown


def _private_bytes() -> int:
    gc.collect()
    memory: Any = psutil.Process().memory_info()
    return memory.rss - getattr(memory, "shared", 0)  # told on Linux only


def _measure(calls: dict[Key, Callable[[], object]], settings: Benchmark) -> dict[Key, Timing]:
    return measure_latency(
        calls,
        warmup=settings.warmup,
        window=settings.window,
        windows_max=settings.windows_max,
        stability=settings.stability,
    )


def _call(network: Runtime, batch: int, image_size: int) -> Callable[[], object]:
    images = _images(batch, image_size)
    return lambda: network.run(images)


def _images(batch: int, image_size: int) -> Float32[np.ndarray, "batch 3 H W"]:
    """Noise: the time does not depend on what is in the pictures."""
    return np.random.default_rng(0).random((batch, 3, image_size, image_size), dtype=np.float32)


def _row(key: Key, timing: Timing, memory_mb: float | None, size_bytes: int | None) -> Row:
    return Row(
        **key._asdict(),
        **asdict(timing),
        images_per_second=1e3 * key.batch / timing.p50_ms,
        memory_mb=memory_mb,
        size_bytes=size_bytes,
    )


def _size_bytes(path: Path) -> int | None:
    """Of a file, or of a bundle's files together; None if it is not there."""
    files = path.rglob("*") if path.is_dir() else [path]
    sizes = [file.stat().st_size for file in files if file.is_file()]
    return sum(sizes) if sizes else None


def headline(rows: Sequence[Row]) -> dict[str, float]:
    """Median latency of what ran, as `VARIANT/RUNTIME/batch_N_ms`."""
    return {f"{row.variant}/{row.runtime}/batch_{row.batch}_ms": row.p50_ms for row in rows if row.p50_ms is not None}


def as_json(rows: Sequence[Row]) -> list[dict[str, Any]]:
    return [asdict(row) for row in rows]
