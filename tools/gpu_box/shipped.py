"""Measure the networks that ship with LeanFace on the GPU at hand: speed, agreement with the CPU, traffic, layers."""

import csv
import json
import os
import shutil
import statistics
import subprocess
import sys
from collections import defaultdict
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any, NamedTuple, cast

import numpy as np
import torch

from leanface import bundle, paths
from leanface.catalog import BASELINE, BASELINE_RUNTIMES, DEPLOYED
from leanface.config import Benchmark, Data
from leanface.device import describe_device
from leanface.face.head_model import load_head_model
from leanface.face.morphable_model import load_morphable_model
from leanface.files import Json, atomic_write, copy_file, write_json
from leanface.metrics.counters import clocks_mhz
from leanface.metrics.estimate import means
from leanface.metrics.measurements import BenchmarkRecord
from leanface.networks.packed import load_pretrained
from leanface.photos.load import load_photo
from leanface.runtime import open_runtime
from leanface.runtime.benchmark import Entry, baseline_runtime, benchmark_end_to_end, benchmark_networks, plan
from leanface.synthesis.dataset import FaceDataset
from leanface.synthesis.prepare import prepare_faces
from leanface.tasks.face.end_to_end import photo_journey
from leanface.tasks.face.evaluation import Evaluator

IMAGE_SIZE = 224

FILE = Path("shipped.json")
"""Everything but the benchmark, which lies where stage benchmark puts it."""

COMPARED = ("truth_identity_mm", "truth_vertex_mm", "truth_rotation_deg", "truth_albedo_levels")

TRAFFIC = ((BASELINE, "torch_cuda"), ("distilled_fp16", "torch_cuda_graph"), (DEPLOYED, "triton_int8"))

GROUP = 128
"""Images that the INT8 kernels compute together."""


class Layer(NamedTuple):
    """One kernel of the INT8 network for `GROUP` images.

    Attributes:
        size_bytes: what it has to read and write at least once.
        operations: multiplications and additions.
        floor_us: the larger of both over what this GPU was measured to do.
    """

    name: str
    time_us: float
    size_bytes: int
    operations: int
    floor_us: float


def place(folder: Path) -> None:
    """Lay the shipped networks into `folder` as the pipeline's, and make it the working directory."""
    folder.mkdir(parents=True, exist_ok=True)
    os.chdir(folder)
    original = load_pretrained(IMAGE_SIZE)
    bundle.save_bundle(
        original, bundle.new_spec(original, IMAGE_SIZE, provenance={"source": "pretrained"}), paths.TEACHER
    )
    shutil.copytree(paths.PACKAGED_STUDENT, paths.DISTILLED, dirs_exist_ok=True)
    for source, target in (
        (paths.PACKAGED_MODEL, paths.onnx_path(DEPLOYED)),
        (paths.PACKAGED_MORPHABLE_MODEL, paths.MORPHABLE_MODEL),
    ):
        target.parent.mkdir(parents=True, exist_ok=True)
        copy_file(source, target)


def measure_speed(settings: Benchmark, photo: str) -> BenchmarkRecord:
    """Benchmark as stage benchmark does."""
    entries = [entry for entry in plan(settings) if _is_here(entry)]
    before = clocks_mhz()
    rows = benchmark_networks(entries, settings, IMAGE_SIZE)
    after = clocks_mhz()
    journey = photo_journey(IMAGE_SIZE, load_head_model(paths.MORPHABLE_MODEL), load_photo(photo))
    end_to_end = benchmark_end_to_end(settings, journey.whole, journey.before)
    return BenchmarkRecord(
        device=describe_device(),
        image_size=IMAGE_SIZE,
        settings=settings,
        clocks_mhz={"before": before, "after": after},
        baseline_runtime=baseline_runtime(rows),
        files={DEPLOYED: paths.onnx_path(DEPLOYED).stat().st_size},
        rows=tuple(rows),
        end_to_end=tuple(end_to_end),
    )


def _is_here(entry: Entry) -> bool:
    """Whether it can be measured; TensorRT, which cannot, is asked for its reason."""
    return entry.path.exists() or (entry.runtime == "tensorrt" and entry.variant == DEPLOYED)


def measure_agreement(data: Data, count: int, seed: int) -> Json:
    """Compare the INT8 file's answers here with ONNX Runtime's on the CPU, on rendered test faces.

    Returns:
        mean errors to truth by runtime, the ratios of the first to the second, and the relative L2 norm of what the
        answers differ by.
    """
    data = data.model_copy(update={"image_size": IMAGE_SIZE, "train_count": 8, "val_count": 8, "test_count": count})
    model = load_morphable_model(paths.MORPHABLE_MODEL)
    prepare_faces(model, data, seed, paths.FACES)
    test = FaceDataset(paths.FACES / "test").head(count)
    evaluator = Evaluator(model, IMAGE_SIZE, data.supersample, 64)
    images, answers = test.images.numpy(), dict[str, np.ndarray]()
    for runtime in ("triton_int8", "onnxruntime"):
        with open_runtime(runtime, paths.onnx_path(DEPLOYED)) as network:
            parts = [network.run(images[start : start + 50]) for start in range(0, count, 50)]
        answers[runtime] = np.concatenate(parts)
    errors = {
        runtime: means(evaluator.errors(torch.from_numpy(found), test.targets)) for runtime, found in answers.items()
    }
    ours, theirs = errors["triton_int8"], errors["onnxruntime"]
    difference = answers["triton_int8"] - answers["onnxruntime"]
    return {
        "faces": count,
        "errors": {runtime: {name: found[name] for name in COMPARED} for runtime, found in errors.items()},
        "ratios": {name: ours[name] / theirs[name] for name in COMPARED},
        "relative_difference": float(np.linalg.norm(difference) / np.linalg.norm(answers["onnxruntime"])),
    }


def measure_traffic(batches: tuple[int, ...]) -> Json:
    """Count the bytes that each network moves between the GPU and its memory, per image, with Nsight Compute.

    Returns:
        rows of variant, runtime, batch, megabytes per image and kernels; or {"not_run": reason}.
    """
    if shutil.which("ncu") is None:
        return {"not_run": "Nsight Compute (ncu) is not installed."}
    rows: list[Json] = []
    for variant, runtime in TRAFFIC:
        for batch in batches:
            command = [
                *("ncu", "--clock-control", "none", "--cache-control", "none", "--profile-from-start", "off"),
                *("--metrics", "dram__bytes_read.sum,dram__bytes_write.sum", "--print-units", "base", "--csv"),
                *(sys.executable, "-m", "tools.gpu_box", "once", variant, runtime, str(batch)),
            ]
            environment = os.environ | {"PYTHONPATH": os.pathsep.join(sys.path)}  # the working directory has changed
            ended = subprocess.run(command, env=environment, capture_output=True, text=True, check=False)
            if ended.returncode:
                return {"not_run": f"ncu failed: {(ended.stderr or ended.stdout).strip().splitlines()[-1]}"}
            counted = [row for row in csv.reader(ended.stdout.splitlines()) if row and row[0].isdigit()]
            moved = sum(float(row[-1].replace(",", "")) for row in counted)
            row = {"variant": variant, "runtime": runtime, "batch": batch}
            rows.append({**row, "mb_per_image": moved / batch / 1e6, "kernels": len({row[0] for row in counted})})
    return {"rows": rows}


def run_once(variant: str, runtime: str, batch: int) -> None:
    """Compute one batch that lies on the GPU, between the calls that start and stop a profiler."""
    path = {BASELINE: paths.TEACHER, "distilled_fp16": paths.DISTILLED, DEPLOYED: paths.onnx_path(DEPLOYED)}[variant]
    pixels = np.random.default_rng(0).integers(0, 256, (batch, IMAGE_SIZE, IMAGE_SIZE, 3), dtype=np.uint8)
    with open_runtime(runtime, path) as network:
        call = network.resident(pixels)
        call()
        torch.cuda.profiler.start()
        call()
        torch.cuda.profiler.stop()


def measure_layers() -> Json:
    """Time each kernel of the INT8 network for `GROUP` images, beside what the GPU would need at least.

    Returns:
        the layers in order; measured bytes and INT8 operations per second; and the sums.
    """
    from leanface.runtime.int8.executor import Executor, Weights
    from leanface.runtime.int8.plan import Convolution, read_plan
    from leanface.runtime.int8.tuner import time_ms
    from leanface.runtime.int8.tuning import TileFile, default_tile
    from leanface.runtime.triton_ import first_gpu, triton_version

    gpu, weights = first_gpu(), Weights(read_plan(paths.onnx_path(DEPLOYED)), torch.device("cuda", 0))
    tiles = TileFile.open(gpu, triton_version())
    executor = Executor(
        weights, IMAGE_SIZE, IMAGE_SIZE, GROUP, lambda p: tiles.get(p) or default_tile(p, gpu), chained=gpu.chains
    )
    pixels = torch.randint(0, 256, (GROUP, IMAGE_SIZE, IMAGE_SIZE, 3), dtype=torch.uint8, device="cuda")
    coefficients = torch.empty((GROUP, executor.plan.outputs), device="cuda")
    executor.run(pixels, coefficients)
    bandwidth, rate = _bandwidth(), _int8_rate()
    steps = {step.name: step for step in executor.plan.steps}
    layers: list[Layer] = []
    for name, call in executor.calls(pixels, coefficients).items():
        step, operations = steps.get(name), 0
        if step is None:
            size_bytes = pixels.numel() * 7 // 3 if name == "image" else executor.plan.heads.weights.size
        else:
            maps = [step.source, step.target, step.residual if isinstance(step, Convolution) else None]
            size_bytes = sum(GROUP * (IMAGE_SIZE // m.stride) ** 2 * m.channels for m in maps if m is not None)
            if isinstance(step, Convolution):
                size_bytes += step.weights.size
                side = IMAGE_SIZE // (step.source.stride * step.stride)
                operations = 2 * GROUP * side * side * step.weights.size
        floor_us = 1e6 * max(size_bytes / bandwidth, operations / rate)
        layers.append(Layer(name, 1e3 * time_ms(call), size_bytes, operations, floor_us))
    return {
        "images": GROUP,
        "bytes_per_second": bandwidth,
        "int8_operations_per_second": rate,
        "layers": [layer._asdict() for layer in layers],
        "time_us": sum(layer.time_us for layer in layers),
        "floor_us": sum(layer.floor_us for layer in layers),
    }


def _median_seconds(call: Callable[[], object], runs: int = 10) -> float:
    times: list[float] = []
    for _ in range(runs + 2):
        before, after = torch.cuda.Event(enable_timing=True), torch.cuda.Event(enable_timing=True)
        before.record()
        call()
        after.record()
        after.synchronize()
        times.append(before.elapsed_time(after) / 1e3)
    return statistics.median(times[2:])


def _bandwidth() -> float:
    """Bytes per second that a copy of 2 GB reads and writes."""
    source = torch.empty(2**31, dtype=torch.uint8, device="cuda")
    return 2 * len(source) / _median_seconds(partial(torch.empty_like(source).copy_, source))


def _int8_rate() -> float:
    """Operations per second of a product of INT8 matrices by NVIDIA's library."""
    side = 8192
    left, right = (torch.randint(-128, 128, (side, side), dtype=torch.int8, device="cuda") for _ in range(2))
    product = partial(cast(Any, torch)._int_mm, left, right.t())
    return 2 * side**3 / _median_seconds(product)


def measure_bytes_of_original(batch: int, runs: int = 20) -> Json:
    """Time the original with copies when it is given bytes, as the others are: half of its handicap is its input."""
    pixels = np.random.default_rng(0).integers(0, 256, (batch, IMAGE_SIZE, IMAGE_SIZE, 3), dtype=np.uint8)
    with open_runtime(BASELINE_RUNTIMES[0], paths.TEACHER) as network:
        network.run(pixels)
        milliseconds = 1e3 * _median_seconds(partial(network.run, pixels), runs)
    return {"batch": batch, "latency_ms": milliseconds}


def measure_shipped(folder: Path, settings: Benchmark, data: Data, seed: int, faces: int) -> None:
    """Do all of it in `folder`, and write down each part as soon as it is there."""
    place(folder)
    found: dict[str, Any] = defaultdict(dict)
    record = measure_speed(settings, data.photos[0])
    atomic_write(paths.BENCHMARK, record.model_dump_json(indent=1) + "\n")
    smallest, largest = settings.batches[0], settings.batches[-1]
    for name, measure in (
        ("layers", measure_layers),
        ("original_given_bytes", partial(measure_bytes_of_original, largest)),
        ("traffic", partial(measure_traffic, (smallest, largest))),
        ("agreement", partial(measure_agreement, data, faces, seed)),
    ):
        found[name] = measure()
        write_json(FILE, found)
        print(f"{name}: {json.dumps(found[name])[:200]}", flush=True)
