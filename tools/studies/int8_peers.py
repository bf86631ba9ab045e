"""Compares LeanFace's INT8 files with ONNX Runtime's `quantize_static`, and with what one gets without compression.

    python -m tools.studies int8 docs/results/int8

reads what stages prepare, teacher, distill and export left. Errors are of the val split's faces; the peer is calibrated
on the train split's. Nothing of the test split is read.
"""

import tempfile
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import onnxruntime
import torch
from jaxtyping import Float32
from onnxruntime import quantization

from leanface import bundle, paths
from leanface.device import describe_device, has_vnni, usable_cores
from leanface.errors import BackendError
from leanface.files import atomic_write, write_json
from leanface.metrics.latency import Timing, measure_latency
from leanface.runtime import open_runtime
from leanface.tasks.face.task import FaceTask

ORT: Any = onnxruntime
PEER: Any = quantization
"""Their functions have no complete types."""

Images = Float32[np.ndarray, "N 3 H W"]
Outputs = Float32[np.ndarray, "N outputs"]

PEER_FACES = 128
"""What `quantize_static` is calibrated on; with more it was no closer."""

FACES, BATCH = 160, 10
RUNTIMES = ("openvino", "onnxruntime")
MEASURES = {"vertex_mm": "vertices, mm", "posed_mm": "posed, mm", "rotation_deg": "rotation, degrees"}
EXACT = "exact"
BASELINE = ("Original FP32", "torch")
WARMUP, WINDOW, WINDOWS_MAX = 5, 20, 12
"""See `leanface.metrics.latency.measure_latency`."""


class Row(NamedTuple):
    """One file in one runtime: means over faces of how far it is from the distilled network, and its speed."""

    file: str
    runtime: str
    size_bytes: int
    errors: dict[str, float] | None
    timing: Timing | None
    not_run: str | None = None


class _Faces(quantization.CalibrationDataReader):
    def __init__(self, images: Images) -> None:
        self._left = iter(images)

    def get_next(self) -> dict[str, Any] | None:  # pyright: ignore[reportIncompatibleMethodOverride]
        image = next(self._left, None)
        return None if image is None else {"images": image[None]}


def quantized_by_peer(floating: Path, images: Images, target: Path) -> None:
    """Quantize an FP32 file as ONNX Runtime's users do for CPUs: U8S8, weights per channel, min-max ranges."""
    prepared = target.with_suffix(".pre.onnx")
    PEER.shape_inference.quant_pre_process(str(floating), str(prepared))
    PEER.quantize_static(
        str(prepared),
        str(target),
        _Faces(images),
        per_channel=True,
        activation_type=PEER.QuantType.QUInt8,
        weight_type=PEER.QuantType.QInt8,
    )


def exact(path: Path) -> Callable[[Images], Outputs]:
    """Open a Q/DQ file so that its arithmetic is computed as written, in float32: no processor's sums overflow."""
    options = ORT.SessionOptions()
    options.intra_op_num_threads = usable_cores()
    options.add_session_config_entry("session.disable_quant_qdq", "1")
    session = ORT.InferenceSession(
        str(path), options, providers=["CPUExecutionProvider"], disabled_optimizers=["WeightBiasQuantization"]
    )
    return lambda images: session.run(None, {"images": images})[0]


def compare(files: dict[str, Path], faces: Images, reference: torch.Tensor, task: FaceTask) -> Iterator[Row]:
    """Measure every file: its errors exactly and in each runtime, then all speeds in turns."""
    reasons: dict[tuple[str, str], str] = {}
    errors: dict[tuple[str, str], dict[str, float]] = {}
    calls: dict[tuple[str, str], Callable[[], object]] = {}
    teacher = open_runtime("torch", paths.TEACHER)
    one = faces[:1]
    calls[BASELINE] = lambda: teacher.run(one)

    def measured(run: Callable[[Images], Outputs]) -> dict[str, float]:
        outputs = np.concatenate([run(faces[start : start + BATCH]) for start in range(0, len(faces), BATCH)])
        found = task.errors(torch.from_numpy(outputs), reference)
        return {name: float(found[name].mean()) for name in MEASURES}

    for name, path in files.items():
        quantized = "INT8" in name
        if quantized:
            errors[name, EXACT] = measured(exact(path))
        for runtime in RUNTIMES:
            try:
                opened = open_runtime(runtime, path)
            except BackendError as error:
                reasons[name, runtime] = str(error)
                continue
            if quantized:
                errors[name, runtime] = measured(opened.run)
            calls[name, runtime] = lambda opened=opened: opened.run(one)
    timings = measure_latency(
        calls,
        warmup=WARMUP,
        window=WINDOW,
        windows_max=WINDOWS_MAX,
        interval=0.05,
        baselines=dict.fromkeys(calls, BASELINE),
    )
    sizes = {name: path.stat().st_size for name, path in files.items()}
    sizes[BASELINE[0]] = sum(file.stat().st_size for file in paths.TEACHER.iterdir())
    for key in {**calls, **errors, **reasons}:
        yield Row(*key, sizes[key[0]], errors.get(key), timings.get(key), reasons.get(key))


def main(folder: Path) -> None:
    """Measure, and write README.md and int8.json."""
    task = FaceTask.load()
    train, val = task.split("train"), task.split("val")
    faces = val.head(FACES).images.numpy()
    distilled, _ = bundle.load_network(paths.DISTILLED)
    with torch.inference_mode():
        reference = torch.cat([distilled(torch.from_numpy(faces[k : k + BATCH])) for k in range(0, FACES, BATCH)])
    with tempfile.TemporaryDirectory() as scratch:
        peer = Path(scratch) / "peer.onnx"
        quantized_by_peer(paths.onnx_path("distilled_fp32"), train.head(PEER_FACES).images.numpy(), peer)
        files = {
            "Original FP32": paths.onnx_path("teacher_fp32"),
            "Light FP32": paths.onnx_path("distilled_fp32"),
            "Light INT8, flavor tensorrt": paths.onnx_path("quantized_int8"),
            "Light INT8, flavor cpu": paths.onnx_path("cpu_int8"),
            "Light INT8, quantize_static": peer,
        }
        rows = sorted(compare(files, faces, reference, task), key=lambda row: [*files].index(row.file))
    device = describe_device()
    record = [
        row._asdict() | {"timing": None if row.timing is None else {"latency_ms": row.timing.latency_ms}}
        for row in rows
    ]
    folder.mkdir(parents=True, exist_ok=True)
    write_json(folder / "int8.json", {"device": device, "vnni": has_vnni(), "rows": record})
    atomic_write(folder / "README.md", page(rows, device, val.image_size))


def page(rows: list[Row], device: dict[str, Any], size: int) -> str:
    """Draw the table."""
    lines = [
        "# INT8 on the CPU, and its peers",
        "",
        f"`python -m tools.studies int8`, on {device['cpu']} ({usable_cores()} threads, "
        f"{'with' if has_vnni() else 'without'} VNNI), at {size} px. Errors are mean distances to the distilled "
        f"network over {FACES} validation faces. *exact*: the file's arithmetic as it is written, which a processor "
        "with VNNI computes too; without VNNI, sums of unsigned bytes overflow, and the runtimes' rows show by how "
        "much. The peer is ONNX Runtime's `quantize_static`: U8S8, per channel, min-max, "
        f"{PEER_FACES} faces of the train split. Speed-ups are medians of paired ratios against the original in "
        "PyTorch FP32, one image at a time, measured in turns in one run, with their 95 % interval.",
        "",
        "| file | MB | runtime | " + " | ".join(MEASURES.values()) + " | ms | speed-up |",
        "|---|---:|---|" + "---:|" * (len(MEASURES) + 2),
    ]
    for row in rows:
        cells = [row.file, f"{row.size_bytes / 1e6:.1f}", row.runtime]
        cells += ["-" if row.errors is None else f"{row.errors[name]:.3f}" for name in MEASURES]
        if row.timing is None:
            cells += ["-", "-" if row.not_run is None else "not_run"]
        else:
            ratio = row.timing.speedup
            own = "-" if ratio is None else f"{ratio.value:.1f}"
            if ratio is not None and ratio.low is not None and ratio.high is not None:
                own += f" ({ratio.low:.1f} to {ratio.high:.1f})"
            cells += [f"{row.timing.latency_ms:.2f}", own]
        lines.append("| " + " | ".join(cells) + " |")
    refused = {f"{row.file} in {row.runtime}": row.not_run for row in rows if row.not_run is not None}
    lines += ["", *(f"- {what}: `not_run`: {why}" for what, why in refused.items())]
    return "\n".join(lines).rstrip() + "\n"
