"""How fast networks of an ablation's sizes are on this machine.

    python -m tools.studies latency reports/ablations/pareto

times a network of every variant's widths and the original, in turns, and writes latency.json beside the results; the
next `python -m tools.studies table` draws it. Their weights are random: a network's time does not depend on them.
"""

import contextlib
import tempfile
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import numpy as np
import torch

from leanface import bundle, catalog
from leanface.device import describe_device
from leanface.files import Json, write_json
from leanface.metrics.latency import measure_latency
from leanface.networks.resnet import FaceReconstructionNet, build_network
from leanface.networks.widths import widths_of
from leanface.runtime import open_runtime
from tools.studies.pareto import LATENCY
from tools.studies.table import read_results

BATCHES = {"torch": (1,), "torch_cuda": (1, 64), "torch_cuda_graph": (1, 64)}
"""PyTorch in FP32, and on a GPU in FP16 as CUDA graphs."""

WARMUP, WINDOW, WINDOWS_MAX = 5, 20, 6
"""See `leanface.metrics.latency.measure_latency`."""

Widths = Mapping[str, tuple[int, int]]


def measure(widths: Mapping[str, Widths], image_size: int) -> list[Json]:
    """Measure the median latency of each network, runtime and batch.

    Args:
        widths: of each network.
        image_size: of the images (px).
    """
    runtimes = ("torch_cuda", "torch_cuda_graph") if torch.cuda.is_available() else ("torch",)
    images = {
        batch: np.random.default_rng(0).random((batch, 3, image_size, image_size), np.float32)
        for runtime in runtimes
        for batch in BATCHES[runtime]
    }
    calls: dict[tuple[str, str, int], Callable[[], object]] = {}
    with contextlib.ExitStack() as stack:
        folder = Path(stack.enter_context(tempfile.TemporaryDirectory()))
        for name, layers in widths.items():
            with torch.random.fork_rng(devices=[]):
                torch.manual_seed(0)
                network = build_network(layers)
            bundle.save_bundle(network, bundle.new_spec(network, image_size), folder / name)
            for runtime in runtimes:
                opened: Any = stack.enter_context(open_runtime(runtime, folder / name))
                for batch in BATCHES[runtime]:
                    batched = images[batch]
                    calls[name, runtime, batch] = (
                        opened.resident(batched)
                        if catalog.RUNTIMES[opened.name].on_gpu
                        else lambda opened=opened, batched=batched: opened.run(batched)
                    )
        timings = measure_latency(calls, warmup=WARMUP, window=WINDOW, windows_max=WINDOWS_MAX, interval=0.05)
        calls.clear()
    return [
        {"variant": name, "runtime": runtime, "batch": batch, "p50_ms": timing.latency_ms}
        for (name, runtime, batch), timing in timings.items()
    ]


def main(folder: Path) -> None:
    """Measure the networks of the results in `folder`; those of equal widths once."""
    results = read_results(folder)
    size = next(iter(results.values()))["image_size"]
    wanted: dict[str, Any] = {name: result["widths"] for name, result in results.items()}
    wanted["original"] = widths_of(FaceReconstructionNet())
    first = {str(layers): name for name, layers in reversed(wanted.items())}
    rows = measure({name: {k: tuple(v) for k, v in wanted[name].items()} for name in first.values()}, size)
    rows = [row | {"variant": name} for name in wanted for row in rows if row["variant"] == first[str(wanted[name])]]
    write_json(folder / LATENCY, {"device": describe_device(), "image_size": size, "rows": rows})
