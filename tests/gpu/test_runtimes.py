"""Runtimes on a GPU: what they compute, their graphs, their streams, and what is counted of them."""

from collections.abc import Iterator
from pathlib import Path

import numpy as np
import onnxruntime
import pytest
import torch
from torch import Tensor

from leanface.bundle import load_bundle
from leanface.config import Benchmark
from leanface.errors import BackendError
from leanface.metrics.measurements import Measurement
from leanface.networks.interface import INPUT_NAME, OUTPUT_NAME
from leanface.runtime import Runtime, open_runtime
from leanface.runtime.base import planes_of
from leanface.runtime.benchmark import Entry, benchmark_networks

TOLERANCES = {"fp32": 1e-4, "fp16": 1e-2, "int8": 5e-2}
"""Of the relative L2 norm, to FP32 on the CPU; of INT8, to ONNX Runtime's answer of the same file."""

CASES = [
    ("torch_cuda", "fp32"),
    ("torch_cuda_graph", "fp16"),
    ("onnxruntime_cuda", "fp32"),
    ("onnxruntime_cuda", "fp16"),
    ("triton_int8", "int8"),
]
SETTINGS = Benchmark(
    runtimes="gpu",
    batches=(1, 16),
    streams=(1, 2),
    concurrent_batches=(1,),
    warmup=2,
    window=4,
    windows_max=6,
    interval=1.0,
    threads=2,
    energy_seconds=0.3,
)


def artifact(name: str, exported, precision: str) -> Path:
    return exported.float_bundle if name.startswith("torch") else getattr(exported, precision)


def opened(name: str, exported, precision: str, streams: int = 1) -> Runtime:
    try:
        return open_runtime(name, artifact(name, exported, precision), streams=streams)
    except BackendError as error:
        pytest.skip(f"{name} cannot run here: {error}")


@pytest.fixture(params=CASES, ids="-".join)
def case(request: pytest.FixtureRequest, exported) -> Iterator[tuple[Runtime, str]]:
    name, precision = request.param
    with opened(name, exported, precision) as runtime:
        yield runtime, precision


@pytest.fixture
def reference(case, exported):
    """Coefficients by PyTorch FP32 on the CPU; for INT8 by ONNX Runtime."""
    if case[1] == "int8":
        session = onnxruntime.InferenceSession(exported.int8, providers=["CPUExecutionProvider"])
        return lambda images: session.run([OUTPUT_NAME], {INPUT_NAME: images})[0]
    return float_reference(exported)


def float_reference(exported):
    network, _ = load_bundle(exported.float_bundle)

    def compute(images: np.ndarray) -> np.ndarray:
        with torch.inference_mode():
            return network(torch.from_numpy(images)).numpy()

    return compute


def distance(got: np.ndarray, expected: np.ndarray) -> float:
    return float(np.linalg.norm(got - expected) / np.linalg.norm(expected))


def test_a_graph_per_shape_and_none_goes_stale(case, reference, images: Tensor) -> None:
    runtime, precision = case
    larger = torch.nn.functional.interpolate(images, size=96).numpy()
    shapes = [images[:1].numpy(), images.numpy(), larger, images[1:2].numpy(), larger[:2], images[2:].numpy()]
    for pictures in [*shapes, *shapes[::-1]]:
        assert distance(runtime.run(pictures), reference(pictures)) < TOLERANCES[precision]


def test_resident_images_stay_and_copies_replace_them(case, reference, images: Tensor) -> None:
    runtime, precision = case
    calls = [runtime.resident(images[:count].numpy()) for count in (1, 2, 4)]
    for _ in range(3):
        for call in calls:
            call()
        assert distance(runtime.run(images[1:3].numpy()), reference(images[1:3].numpy())) < TOLERANCES[precision]


def test_bytes_are_their_255th_parts_and_may_lie_in_the_runtimes_memory(case, images: Tensor) -> None:
    runtime, precision = case
    pixels = np.ascontiguousarray((255 * images.numpy()).round().astype(np.uint8).transpose(0, 2, 3, 1))
    expected = runtime.run(planes_of(pixels))
    assert distance(runtime.run(pixels), expected) < TOLERANCES[precision]
    buffer = runtime.buffer(*pixels.shape[:3])
    buffer[:] = pixels
    assert distance(runtime.run(buffer), expected) < TOLERANCES[precision]


def test_fp32_is_not_tf32(exported, images: Tensor) -> None:
    reference = float_reference(exported)
    with open_runtime("torch_cuda", exported.float_bundle) as runtime:
        exact = distance(runtime.run(images.numpy()), reference(images.numpy()))
        torch.backends.cudnn.allow_tf32 = True  # until the runtime closes
        rough = distance(runtime.run(images.numpy()), reference(images.numpy()))
    assert exact < TOLERANCES["fp32"]
    assert rough > 3 * exact


def test_a_benchmark_counts_time_memory_and_energy(exported) -> None:
    entries = [
        Entry("teacher_fp32", "torch_cuda", exported.float_bundle, (1,)),
        Entry("teacher_fp16", "torch_cuda_graph", exported.float_bundle, (1, 2)),
    ]
    rows = benchmark_networks(entries, SETTINGS, 64)
    assert all(row.ran for row in rows)
    keyed: dict[tuple[str, int, int, bool], Measurement] = {(r.runtime, r.batch, r.streams, r.copies): r for r in rows}
    assert len(keyed) == 2 * 4 + 1
    eager, graph = (keyed[name, 1, 1, False] for name in ("torch_cuda", "torch_cuda_graph"))
    for row in (eager, graph):
        assert row.latency_ms is not None
        assert row.latency_ms > 0
        assert row.speedup is not None
        assert row.speedup.count == 6
        assert row.device_memory_mb is not None
        assert 0 < row.device_memory_mb < 2000, "without the CUDA context"
        assert (row.energy_mj is None) == (row.energy_reason is not None)
        if row.energy_mj is not None:
            assert row.energy_source == "nvml"
            assert row.energy_mj > 0
    assert keyed["torch_cuda_graph", 1, 2, True].energy_reason is not None


def test_onnxruntime_refuses_int8_where_it_would_end_the_process(exported) -> None:
    opened("onnxruntime_cuda", exported, "fp32").close()
    with pytest.raises(BackendError, match="TensorRT"):
        open_runtime("onnxruntime_cuda", exported.int8)
