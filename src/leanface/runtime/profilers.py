"""Measure what each layer of a network takes in a runtime.

Each source has its own clock: OpenVINO's counters, ONNX Runtime's profile, CUDA events. Their sum is compared with the
latency of runs that were not profiled, made in turns with those that were.
"""

import json
import math
import tempfile
import time
from collections.abc import Callable, Collection, Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from leanface.device import describe_device, usable_cores
from leanface.errors import BackendError
from leanface.metrics.profile import Kernel, Profile, layer_of, total_bytes
from leanface.networks.interface import INPUT_NAME, OUTPUT_NAME
from leanface.runtime import open_best, open_runtime
from leanface.runtime.base import Images
from leanface.runtime.engine_layers import ELEMENTWISE
from leanface.runtime.onnx_file import read_onnx

SECONDS, RUNS_MIN = 3.0, 20
"""How long the runs in turns last, and how many there are at least."""

CUT_MS = 0.001
"""What an OpenVINO counter loses on average: each run is cut to whole microseconds, and their mean again.

Source: src/plugins/intel_cpu/src/perf_count.h of OpenVINO.
"""

REPEATS = 50
"""Launches of a kernel between two CUDA events, which tell half a microsecond."""


class Profiled(NamedTuple):
    """A network that is run with a profiler, twice in each turn: the first run of two finds cold caches.

    Attributes:
        kernels: each one's mean over these turns, counted from 0, or over all if the runtime does not tell turns apart.
    """

    run: Callable[[], object]
    kernels: Callable[[Collection[int]], list[Kernel]]


REFORMATS = {
    *("Reorder", "Convert", "Transpose", "FakeQuantize"),  # OpenVINO
    *("ReorderInput", "ReorderOutput", "Cast", "QuantizeLinear", "DequantizeLinear"),  # ONNX Runtime
}  # fmt: skip


def profile_network(
    path: Path, runtime: str, *, batch: int = 1, image_size: int | None = None, threads: int = 0
) -> Profile:
    """Profile an ONNX file on noise.

    Args:
        runtime: one of `PROFILERS`.
        image_size: other than the one that the file was exported for (px).
        threads: on the CPU; 0: all usable cores.

    Raises:
        ArtifactError: the file is missing, damaged, or was not exported by LeanFace.
        BackendError: the runtime cannot run it here, or cannot be profiled.
    """
    if runtime not in PROFILERS:
        raise BackendError(
            f"{runtime} cannot be profiled layer by layer; expected one of {', '.join(PROFILERS)}. For a TensorRT "
            "engine import what `trtexec --exportProfile` writes."
        )
    side, threads = image_size or read_onnx(path).image_size, threads or usable_cores()
    on_gpu = runtime == "triton_int8"
    generator = np.random.default_rng(0)
    images: Images = (
        generator.integers(0, 256, (batch, side, side, 3), dtype=np.uint8)
        if on_gpu
        else generator.random((batch, 3, side, side), dtype=np.float32)
    )
    with open_runtime(runtime, path, threads) as opened:
        plain = opened.resident(images)
        profiled = PROFILERS[runtime](path, images, threads)
        plain_ms, profiled_ms = _in_turns(plain, profiled)
        found = profiled.kernels(_faster_half(profiled_ms))
    device = describe_device()
    return Profile(
        title=path.stem,
        runtime=runtime,
        batch=batch,
        image_size=side,
        threads=None if on_gpu else threads,
        device=", ".join(gpu["name"] for gpu in device["gpus"][:1]) if on_gpu else device["cpu"],
        latency_ms=_mean(plain_ms, _faster_half(plain_ms)),
        kernels=tuple(found),
    )


def _in_turns(plain: Callable[[], object], profiled: Profiled) -> tuple[list[float], list[float]]:
    """Run both in turns; return the times of each (ms)."""
    plain_ms: list[float] = []
    profiled_ms: list[float] = []
    end = time.monotonic() + SECONDS
    while len(plain_ms) < RUNS_MIN or time.monotonic() < end:
        plain_ms.append(_second_ms(plain))
        profiled_ms.append(_second_ms(profiled.run))
    return plain_ms, profiled_ms


def _second_ms(call: Callable[[], object]) -> float:
    call()
    start_ns = time.perf_counter_ns()
    call()
    return (time.perf_counter_ns() - start_ns) / 1e6


def _faster_half(times_ms: Sequence[float]) -> set[int]:
    """Choose the runs that nothing else on the machine slowed down, as far as can be told."""
    return {int(index) for index in np.argsort(times_ms)[: (len(times_ms) + 1) // 2]}


def _mean(times_ms: Sequence[float], runs: Collection[int]) -> float:
    return float(np.mean([times_ms[index] for index in runs]))


def _openvino(path: Path, images: Images, threads: int) -> Profiled:
    """Read OpenVINO's counters at the end: it has nothing but their means over all runs, on a busy machine too slow."""
    from leanface.runtime.openvino_ import compile_network

    _, compiled = compile_network(path, threads, 1, counting=True)
    request = compiled.create_infer_request()

    def run() -> None:
        request.infer({INPUT_NAME: images}, share_inputs=True, share_outputs=True)

    def kernels(runs: Collection[int]) -> list[Kernel]:
        times_ms = {
            info.node_name: 1e3 * info.real_time.total_seconds() + CUT_MS
            for info in request.profiling_info
            if info.status == info.Status.EXECUTED
        }
        found: list[Kernel] = []
        for node in compiled.get_runtime_model().get_ordered_ops():
            name = str(node.get_friendly_name())
            if name not in times_ms:
                continue
            facts = {key: _text(value) for key, value in node.get_rt_info().items()}
            reformats = facts["layerType"] in REFORMATS
            # What converts between two layers has no name of its own: it belongs to the one that reads it.
            readers = [target.get_node() for output in node.outputs() for target in output.get_target_inputs()]
            owner = str(readers[0].get_friendly_name()) if facts["layerType"] == "Reorder" and readers else name
            ports = [*node.input_values(), *node.outputs()]
            found.append(
                Kernel(
                    name=name,
                    layer=layer_of(owner) if owner != OUTPUT_NAME else OUTPUT_NAME,
                    kind=facts["layerType"],
                    time_ms=times_ms[name],
                    size_bytes=total_bytes([_port_bytes(port) for port in ports]),
                    precision=facts["primitiveType"].rpartition("_")[2].lower(),
                    reformats=reformats,
                )
            )
        return found

    return Profiled(run, kernels)


def _text(value: Any) -> str:
    return str(value.astype(str) if hasattr(value, "astype") else value)


def _port_bytes(port: Any) -> int | None:
    shape = port.get_partial_shape()
    return None if shape.is_dynamic else math.prod(shape.to_shape()) * port.get_element_type().bitwidth // 8


def _onnxruntime(path: Path, images: Images, threads: int) -> Profiled:
    from leanface.runtime.onnxruntime_ import open_session

    owners = _owners(path)
    folder = tempfile.TemporaryDirectory()
    session = open_session(path, threads, ["CPUExecutionProvider"], Path(folder.name) / "profile")

    def run() -> None:
        session.run([OUTPUT_NAME], {INPUT_NAME: images})

    def kernels(runs: Collection[int]) -> list[Kernel]:
        with folder:
            events = json.loads(Path(session.end_profiling()).read_bytes())
        nodes: dict[str, list[dict[str, Any]]] = {}
        for event in events:
            if event.get("cat") == "Node" and event["name"].endswith("_kernel_time"):
                nodes.setdefault(event["name"].removesuffix("_kernel_time"), []).append(event)
        found: list[Kernel] = []
        for name, own in nodes.items():
            about = own[-1]["args"]
            layer = layer_of(name.removeprefix("InsertedPrecisionFreeCast_").removesuffix("/duplicated"))
            if "/" not in name:  # made by the optimizer, which names it after a tensor, or not at all
                owner = owners.get(name) or owners.get(name.rpartition("_")[0])
                layer = owner or (found[-1].layer if found else name)
            found.append(
                Kernel(
                    name=name,
                    layer=layer,
                    kind=about["op_name"],
                    time_ms=_mean([event["dur"] for event in own[1::2]], runs) / 1e3,
                    size_bytes=sum(int(about[key]) for key in ("activation_size", "parameter_size", "output_size")),
                    precision=next(iter(about["input_type_shape"][0])) if about["input_type_shape"] else "",
                    reformats=about["op_name"] in REFORMATS,
                )
            )
        return found

    return Profiled(run, kernels)


def _owners(path: Path) -> dict[str, str]:
    """Return the layer that computes each tensor of an ONNX file; what is done to its result is part of it."""
    import onnx

    producers = {output: node for node in onnx.load(path).graph.node for output in node.output}

    def owner(node: onnx.NodeProto) -> str:
        while node.op_type in ELEMENTWISE and node.input[0] in producers:
            node = producers[node.input[0]]
        return layer_of(node.name)

    return {output: owner(node) for output, node in producers.items()}


def _triton(path: Path, images: Images, threads: int) -> Profiled:
    """Time each kernel by itself, again and again from a CUDA graph: what passes between two kernels is not counted."""
    import torch

    from leanface.runtime.cuda_graph import GraphLane
    from leanface.runtime.int8.call import Call
    from leanface.runtime.int8.executor import Executor, Weights
    from leanface.runtime.int8.plan import read_plan
    from leanface.runtime.int8.tuning import TileFile, default_tile
    from leanface.runtime.triton_ import first_gpu, triton_version

    gpu, plan = first_gpu(), read_plan(path)
    tiles = TileFile.open(gpu, triton_version())
    batch, side = images.shape[:2]
    executor = Executor(
        Weights(plan, torch.device("cuda", 0)), side, side, batch,
        lambda problem: tiles.get(problem) or default_tile(problem, gpu), chained=gpu.chains,
    )  # fmt: skip
    calls = executor.calls(torch.from_numpy(images).cuda(), torch.empty((batch, plan.outputs), device="cuda"))

    def network(images: object, coefficients: object) -> None:
        """Of a lane whose graphs are captured kernel by kernel: nothing."""

    def queue(chosen: Sequence[Call], times: int) -> None:
        for call in (call for call in chosen for _ in range(times)):
            call.queue()

    lane = GraphLane(network, plan.outputs, batch * side * side)
    lane.warm_up(partial(queue, list(calls.values()), 1))

    def time_ms(call: Call) -> float:
        graph = lane.capture(partial(queue, [call], REPEATS))
        taken: list[float] = []
        for _ in range(RUNS_MIN):
            start, end = (torch.cuda.Event(enable_timing=True) for _ in range(2))
            start.record(lane.stream)
            graph.launch()
            end.record(lane.stream)
            end.synchronize()
            taken.append(start.elapsed_time(end) / REPEATS)
        return float(np.median(taken))

    def kernels(runs: Collection[int]) -> list[Kernel]:
        sizes = executor.traffic_bytes(batch)
        return [
            Kernel(
                name=call.kernel.__name__,
                layer="backbone.conv1" if name == "image" else name,
                kind="fold" if name == "image" else call.kernel.__name__,
                time_ms=time_ms(call),
                size_bytes=sizes[name],
                precision="i8",
                reformats=name == "image",
            )
            for name, call in calls.items()
        ]

    return Profiled(lambda: None, kernels)


PROFILERS: dict[str, Callable[[Path, Images, int], Profiled]] = {
    "triton_int8": _triton,
    "openvino": _openvino,
    "onnxruntime": _onnxruntime,
}


def best_profiled(files: Mapping[str, Path]) -> str:
    """Name the best runtime that runs here and can be profiled; files as for `open_best`.

    Raises:
        ArtifactError: the file is missing, damaged, or was not exported by LeanFace.
        BackendError: none runs here.
    """
    for path in files.values():
        read_onnx(path)
    with open_best({name: files[name] for name in PROFILERS if name in files}).runtime as opened:
        return opened.name
