"""Compares LeanFace's INT8 files with those of other tools, and with what one gets without compression.

    python -m tools.studies int8 docs/results/int8
    python -m tools.studies int8 docs/results/int8/224 --size 224
    python -m tools.studies int8 docs/results/int8/avx2 --without-vnni

reads what stages prepare, teacher, distill and export left. Errors are of the val split's faces; the peers are
calibrated on the train split's. Nothing of the test split is read. A peer that is not installed (`pip install
"leanface[peers]"`) is not_run. With a size, the network is the one that LeanFace ships, on faces that are rendered
anew in that size, and quantized on these as stage quantize does. Without VNNI, PyTorch and OpenVINO use AVX2 alone;
ONNX Runtime, which cannot be limited, is not_run.
"""

import copy
import importlib
import tempfile
import warnings
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import onnxruntime
import openvino
import torch
from jaxtyping import Float32
from onnxruntime import quantization
from torch import nn

from leanface import bundle, paths
from leanface.config import load_face_config
from leanface.device import describe_device, has_vnni, usable_cores
from leanface.errors import BackendError
from leanface.export.onnx import describe, export_network, save_model
from leanface.files import atomic_write, write_json
from leanface.metrics.latency import Timing, measure_latency
from leanface.networks.interface import INPUT_NAME, OUTPUT_NAME, Flavor
from leanface.quantization.calibrate import calibrate, quantizer_of, round_calibrated
from leanface.runtime import open_runtime
from leanface.synthesis.dataset import FaceDataset
from leanface.synthesis.prepare import prepare_faces
from leanface.task import Split
from leanface.tasks.face.task import FaceTask

ORT: Any = onnxruntime
PEER: Any = quantization
"""Their functions have no complete types."""

Images = Float32[np.ndarray, "N 3 H W"]
Outputs = Float32[np.ndarray, "N outputs"]
Run = Callable[[Images], Outputs]

PEER_FACES = 256
"""What every tool is calibrated on, LeanFace's too (`quantize.calibration_count`)."""

FACES, BATCH = 160, 10
RUNTIMES = ("openvino", "onnxruntime")
OPENVINO_DEFAULT = "openvino, as it comes"
"""Without the f32 hint: floating-point layers in bf16 where the processor has it."""

MEASURES = {"vertex_mm": "vertices, mm", "posed_mm": "posed, mm", "rotation_deg": "rotation, degrees"}
EXACT = "exact"
BASELINE = ("Original FP32", "torch")
WARMUP, WINDOW, WINDOWS_MAX = 5, 10, 12
"""See `leanface.metrics.latency.measure_latency`."""

INSTRUCTIONS = ("avx2", "avx512f", "avx_vnni", "avx512_vnni", "avx512_bf16", "amx_int8", "amx_bf16")
"""Those of the processor's that decide what these networks cost."""


class Row(NamedTuple):
    """One file in one runtime: means over faces of how far it is from the distilled network, and its speed."""

    file: str
    runtime: str
    size_bytes: int | None
    errors: dict[str, float] | None
    timing: Timing | None
    not_run: str | None = None


class Peer(NamedTuple):
    """A file that another tool made of the distilled network, or the reason why there is none."""

    path: Path | None
    not_run: str | None = None


class Networks(NamedTuple):
    """The distilled network and its INT8 files, with faces of one size."""

    distilled: nn.Module
    floating: Path
    tensorrt: Path
    cpu: Path
    train: Split
    val: Split


def of_the_pipeline(task: FaceTask) -> Networks:
    """Take what the stages left."""
    distilled, _ = bundle.load_network(paths.DISTILLED)
    floating, tensorrt, cpu = (paths.onnx_path(name) for name in ("distilled_fp32", "quantized_int8", "cpu_int8"))
    return Networks(distilled, floating, tensorrt, cpu, task.split("train"), task.split("val"))


def shipped_at(size: int, task: FaceTask, folder: Path) -> Networks:
    """Quantize the network that LeanFace ships on faces of another size."""
    config = load_face_config(paths.CONFIG)
    counts = {"image_size": size, "train_count": PEER_FACES, "val_count": FACES, "test_count": 1}
    prepare_faces(task.model, config.data.model_copy(update=counts), config.seed, folder / "faces")
    train, val = (FaceDataset(folder / "faces" / split) for split in ("train", "val"))
    distilled, spec = bundle.load_network(paths.PACKAGED_STUDENT)
    quantizer = quantizer_of(config.quantize, spec.widths)
    network = calibrate(copy.deepcopy(distilled), config.quantize, quantizer, train)
    round_calibrated(network, config.quantize, train)
    fake = spec.model_copy(update={"quantizer": quantizer.model_dump(mode="json")})

    def saved(network: nn.Module, spec: bundle.Spec, name: str, flavor: Flavor = "tensorrt") -> Path:
        precision = "fp32" if spec.quantizer is None else "int8"
        model = export_network(network, spec, precision, config.export.opset, flavor=flavor)
        save_model(model, folder / f"{name}.onnx", describe(model))
        return folder / f"{name}.onnx"

    flavors = saved(network, fake, "tensorrt"), saved(network, fake, "cpu", "cpu")
    return Networks(distilled, saved(distilled, spec, "floating"), *flavors, train, val)


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


def quantized_by_nncf(floating: Path, images: Images, target: Path) -> Peer:
    """Quantize as OpenVINO's users do: `nncf.quantize` with its defaults."""
    try:
        nncf: Any = importlib.import_module("nncf")
    except ImportError as error:
        return Peer(None, f'NNCF is not installed ({error}): pip install "leanface[peers]"')
    faces = nncf.Dataset([{INPUT_NAME: image[None]} for image in images])
    quantized = nncf.quantize(openvino.Core().read_model(floating), faces, subset_size=len(images))
    openvino.save_model(quantized, target)
    return Peer(target)


def quantized_by_modelopt(distilled: nn.Module, images: Images, target: Path) -> Peer:
    """Quantize as ModelOpt's users do: INT8_DEFAULT_CFG, and PyTorch's export to ONNX."""
    mtq: Any = importlib.import_module("modelopt.torch.quantization")
    network = copy.deepcopy(distilled)

    def calibrate(quantized: nn.Module) -> None:
        for start in range(0, len(images), BATCH):
            quantized(torch.from_numpy(images[start : start + BATCH]))

    with warnings.catch_warnings(), torch.no_grad():
        warnings.simplefilter("ignore")
        network = mtq.quantize(network, mtq.INT8_DEFAULT_CFG, calibrate)
        axes = {INPUT_NAME: {0: "batch"}, OUTPUT_NAME: {0: "batch"}}
        torch.onnx.export(
            network,
            (torch.from_numpy(images[:1]),),
            target,
            input_names=[INPUT_NAME],
            output_names=[OUTPUT_NAME],
            dynamic_axes=axes,
            opset_version=19,
            dynamo=False,
        )
    return Peer(target)


class OpenVino:
    """A file in OpenVINO, without LeanFace's checks.

    Args:
        precision: of floating-point layers; None leaves it to OpenVINO.

    Raises:
        BackendError: OpenVINO does not compile the file.
    """

    def __init__(self, path: Path, precision: str | None) -> None:
        hints = {"PERFORMANCE_HINT": "LATENCY"} | ({} if precision is None else {"INFERENCE_PRECISION_HINT": precision})
        try:
            self._request = openvino.Core().compile_model(path, "CPU", hints).create_infer_request()
        except RuntimeError as error:
            raise BackendError(f"OpenVINO does not compile it: {str(error).strip().splitlines()[-1]}") from error

    def __call__(self, images: Images) -> Outputs:
        """Compute the outputs."""
        return np.array(self._request.infer({INPUT_NAME: images}, share_inputs=True)[OUTPUT_NAME])


def exact(path: Path) -> Run:
    """Open a Q/DQ file so that its arithmetic is computed as written, in float32: no processor's sums overflow."""
    options = ORT.SessionOptions()
    options.intra_op_num_threads = usable_cores()
    options.add_session_config_entry("session.disable_quant_qdq", "1")
    session = ORT.InferenceSession(str(path), options, providers=["CPUExecutionProvider"])
    return lambda images: session.run(None, {"images": images})[0]


def open_as(path: Path, runtime: str) -> Run:
    """Open a file: LeanFace's runtimes refuse what they would compute wrongly.

    Raises:
        BackendError: it does.
    """
    if path.suffix == ".onnx" and runtime in RUNTIMES:
        opened = open_runtime(runtime, path)
        if runtime == "onnxruntime":
            return opened.run
        opened.close()  # all files are called alike, without LeanFace's checks of the images
    return OpenVino(path, None if runtime == OPENVINO_DEFAULT else "f32")


def runtimes_of(path: Path) -> tuple[str, ...]:
    """Name what runs a file; NNCF's is OpenVINO's own."""
    return ("openvino",) if path.suffix == ".xml" else RUNTIMES


def compare(files: dict[str, Peer], faces: Images, reference: torch.Tensor, task: FaceTask) -> Iterator[Row]:
    """Measure every file: its errors exactly and in each runtime, then all speeds in turns."""
    reasons: dict[tuple[str, str], str] = {}
    errors: dict[tuple[str, str], dict[str, float]] = {}
    calls: dict[tuple[str, str], Callable[[], object]] = {}
    teacher = open_runtime("torch", paths.TEACHER)
    one = faces[:1]
    calls[BASELINE] = lambda: teacher.run(one)

    def measured(run: Run) -> dict[str, float]:
        outputs = np.concatenate([run(faces[start : start + BATCH]) for start in range(0, len(faces), BATCH)])
        found = task.errors(torch.from_numpy(outputs), reference)
        return {name: float(found[name].mean()) for name in MEASURES}

    for name, (path, reason) in files.items():
        if path is None:
            reasons[name, "openvino"] = reason or ""
            continue
        quantized = "INT8" in name
        if quantized and path.suffix == ".onnx":
            errors[name, EXACT] = measured(exact(path))
        for runtime in (*runtimes_of(path), *(() if quantized else (OPENVINO_DEFAULT,))):
            if runtime == "onnxruntime" and limited():
                reasons[name, runtime] = "ONNX Runtime has no setting for the instructions that it may use"
                continue
            try:
                run = open_as(path, runtime)
            except BackendError as error:
                reasons[name, runtime] = str(error)
                continue
            if "Original" not in name:
                errors[name, runtime] = measured(run)
            calls[name, runtime] = lambda run=run: run(one)
    timings = measure_latency(
        calls,
        warmup=WARMUP,
        window=WINDOW,
        windows_max=WINDOWS_MAX,
        interval=0.05,
        baselines=dict.fromkeys(calls, BASELINE),
    )
    sizes = {name: size_bytes_of(path) for name, (path, _) in files.items() if path is not None}
    sizes[BASELINE[0]] = sum(file.stat().st_size for file in paths.TEACHER.iterdir())
    for key in {**calls, **errors, **reasons}:
        yield Row(*key, sizes.get(key[0]), errors.get(key), timings.get(key), reasons.get(key))


def limited() -> bool:
    """Tell whether the processor could more than PyTorch and OpenVINO may use (`--without-vnni`)."""
    return not has_vnni() and "avx512_vnni" in instructions()


def size_bytes_of(path: Path) -> int:
    """Count the weights that OpenVINO's own format keeps in a second file, too."""
    weights = path.with_suffix(".bin")
    return path.stat().st_size + (weights.stat().st_size if path.suffix == ".xml" else 0)


def main(folder: Path, size: int | None = None) -> None:
    """Measure, and write README.md and int8.json."""
    task = FaceTask.load()
    with tempfile.TemporaryDirectory() as scratch:
        ours = of_the_pipeline(task) if size is None else shipped_at(size, task, Path(scratch))
        faces = ours.val.head(FACES).images.numpy()
        calibration = ours.train.head(PEER_FACES).images.numpy()
        with torch.inference_mode():
            batches = [torch.from_numpy(faces[start : start + BATCH]) for start in range(0, FACES, BATCH)]
            reference = torch.cat([ours.distilled(batch) for batch in batches])
        static, modelopt = Path(scratch) / "static.onnx", Path(scratch) / "modelopt.onnx"
        quantized_by_peer(ours.floating, calibration, static)
        files = {
            "Original FP32": Peer(paths.onnx_path("teacher_fp32")),
            "Light FP32": Peer(ours.floating),
            "Light INT8, flavor tensorrt": Peer(ours.tensorrt),
            "Light INT8, flavor cpu": Peer(ours.cpu),
            "Light INT8, quantize_static": Peer(static),
            "Light INT8, NNCF": quantized_by_nncf(ours.floating, calibration, Path(scratch) / "nncf.xml"),
            "Light INT8, ModelOpt PTQ": quantized_by_modelopt(ours.distilled, calibration, modelopt),
        }
        rows = sorted(compare(files, faces, reference, task), key=lambda row: [*files].index(row.file))
    device = describe_device()
    record = [row._asdict() | {"timing": None if row.timing is None else _timing(row.timing)} for row in rows]
    folder.mkdir(parents=True, exist_ok=True)
    about = {"device": device, "instructions": instructions(), "limited": limited(), "size": faces.shape[-1]}
    write_json(folder / "int8.json", {**about, "rows": record})
    atomic_write(folder / "README.md", page(rows, device, faces.shape[-1], of_shipped=size is not None))


def _timing(timing: Timing) -> dict[str, Any]:
    found = timing.speedup
    speedup = None if found is None else {"value": found.value, "interval": [found.low, found.high]}
    return {"latency_ms": timing.latency_ms, "speedup": speedup}


def instructions() -> list[str]:
    """List those of `INSTRUCTIONS` that the processor has; only Linux tells."""
    cpuinfo = Path("/proc/cpuinfo")
    words = set(cpuinfo.read_text().split()) if cpuinfo.is_file() else set[str]()
    return [name for name in INSTRUCTIONS if name in words]


def page(rows: list[Row], device: dict[str, Any], size: int, *, of_shipped: bool = False) -> str:
    """Draw the table."""
    uncompressed = [row.timing.latency_ms for row in rows if "Original" in row.file and row.timing is not None]
    has = "limited to AVX2" if limited() else ", ".join(instructions())
    options = (f" --size {size}" if of_shipped else "") + (" --without-vnni" if limited() else "")
    lines = [
        "# INT8 on the CPU, and its peers",
        "",
        f"`python -m tools.studies int8{options}`, on {device['cpu']} ({usable_cores()} threads; {has}), "
        f"at {size} px. Errors are mean distances to the distilled network over "
        f"{FACES} validation faces. *exact*: the file's arithmetic as it is written, which a processor with "
        "VNNI computes too; without VNNI, sums of unsigned bytes overflow, and the runtimes' rows show by how"
        " much. *As it comes*: OpenVINO's own default, which computes floating-point layers in bf16 where the"
        f" processor has it; elsewhere LeanFace asks for f32. Every tool is calibrated on {PEER_FACES} faces "
        "of the train split, by its defaults: ONNX Runtime's `quantize_static` (U8S8, per channel, min-max), "
        "NNCF's `quantize`, and ModelOpt's `INT8_DEFAULT_CFG`. Speed-ups are medians of paired ratios against"
        " the original in PyTorch FP32, one image at a time, measured in turns in one run, with their 95 % "
        "interval; the last column is the median latency over that of the original in its best runtime.",
        "",
        "| file | MB | runtime | " + " | ".join(MEASURES.values()) + " | ms | speed-up | over the best original |",
        "|---|---:|---|" + "---:|" * (len(MEASURES) + 3),
    ]
    for row in rows:
        cells = [row.file, "-" if row.size_bytes is None else f"{row.size_bytes / 1e6:.1f}", row.runtime]
        cells += ["-" if row.errors is None else f"{row.errors[name]:.3f}" for name in MEASURES]
        if row.timing is None:
            cells += ["-", "-" if row.not_run is None else "not_run", "-"]
        else:
            ratio = row.timing.speedup
            own = "-" if ratio is None else f"{ratio.value:.1f}"
            if ratio is not None and ratio.low is not None and ratio.high is not None:
                own += f" ({ratio.low:.1f} to {ratio.high:.1f}{', too wide' if ratio.too_wide else ''})"
            cells += [f"{row.timing.latency_ms:.2f}", own, f"{min(uncompressed) / row.timing.latency_ms:.1f}"]
        lines.append("| " + " | ".join(cells) + " |")
    refused = {f"{row.file} in {row.runtime}": row.not_run for row in rows if row.not_run is not None}
    lines += ["", *(f"- {what}: `not_run`: {why}" for what, why in refused.items())]
    return "\n".join(lines).rstrip() + "\n"
