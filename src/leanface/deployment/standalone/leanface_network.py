"""Run a compressed network with nothing but numpy and OpenVINO or ONNX Runtime.

    python leanface_network.py image.ppm --out outputs.npy
    python leanface_network.py --check                       # does this machine compute what it should?

Images are binary PPM files (`convert image.jpg image.ppm`, `ffmpeg -i image.jpg image.ppm`) or .npy files of uint8
(height, width, 3), RGB, of the size that bundle.json names. To use it from Python:

    from leanface_network import HERE, Network, model_for_this_machine
    outputs = Network(model_for_this_machine(HERE))(images)  # uint8 (N, size, size, 3) -> float32 (N, outputs)
"""

import argparse
import errno
import io
import json
import os
import re
import sys
import time
from pathlib import Path
from typing import Any

import numpy as np

HERE = Path(__file__).resolve().parent
MODEL, CPU_MODEL = "model.onnx", "model_cpu.onnx"
"""The network, right everywhere; and, if it is there, its flavor for x86 processors with VNNI, which alone multiply
unsigned by signed bytes exactly."""

TOLERANCE = 0.1
"""Relative L2 distance of the outputs that --check allows: runtimes round INT8 differently, by up to 0.06 yet."""

PPM_HEADER = re.compile(rb"P6(?:\s|#[^\n]*\n)+(\d+)(?:\s|#[^\n]*\n)+(\d+)(?:\s|#[^\n]*\n)+255\s")


class Network:
    """The network in OpenVINO, which computes INT8 as INT8 on a CPU, or else in ONNX Runtime."""

    def __init__(self, path: Path, runtime: str | None = None) -> None:
        self.path = path
        missing: list[str] = []
        for name in [runtime] if runtime else ["openvino", "onnxruntime"]:
            try:
                self.run = RUNTIMES[name](path)
                self.runtime = name
                return
            except ImportError as error:
                missing.append(f"{name}: {error}")
        raise SystemExit(f"No runtime: {'; '.join(missing)}. `pip install openvino` or `pip install onnxruntime`.")

    def __call__(self, images: np.ndarray) -> np.ndarray:
        """Return the outputs (N,count), float32, of uint8 RGB images (N,size,size,3)."""
        return self.run(np.ascontiguousarray(images.transpose(0, 3, 1, 2), np.float32) / np.float32(255))


def _openvino(path: Path) -> Any:
    import openvino

    properties = {"PERFORMANCE_HINT": "LATENCY", "INFERENCE_PRECISION_HINT": "f32"}
    request = openvino.Core().compile_model(path, "CPU", properties).create_infer_request()

    def run(images: np.ndarray) -> np.ndarray:
        return np.array(request.infer({"images": images})["coefficients"])

    return run


def _onnxruntime(path: Path) -> Any:
    import onnxruntime as ort

    onnxruntime: Any = ort  # it has no types
    onnxruntime.set_default_logger_severity(3)
    session = onnxruntime.InferenceSession(str(path), providers=["CPUExecutionProvider"])

    def run(images: np.ndarray) -> np.ndarray:
        return session.run(["coefficients"], {"images": images})[0]

    return run


def model_for_this_machine(folder: Path, cpuinfo: Path = Path("/proc/cpuinfo")) -> Path:
    """Return the flavor of the network that is exact and fastest here; only Linux tells what the processor can."""
    lines = cpuinfo.read_text().splitlines() if cpuinfo.is_file() else []
    flags = {flag for line in lines if line.startswith("flags") for flag in line.split()}
    with_vnni = bool(flags & {"avx512_vnni", "avx_vnni"})
    return folder / (CPU_MODEL if with_vnni and (folder / CPU_MODEL).is_file() else MODEL)


RUNTIMES = {"openvino": _openvino, "onnxruntime": _onnxruntime}


def read_image(path: Path) -> np.ndarray:
    """Read a binary PPM of 8 bits, or a .npy file of uint8 (height, width, 3)."""
    try:
        image = np.load(path, allow_pickle=False) if path.suffix == ".npy" else path.read_bytes()
    except (OSError, ValueError, EOFError) as error:
        raise SystemExit(f"cannot read {path}: {error}") from None
    if isinstance(image, bytes):
        content = image
        header = PPM_HEADER.match(content)
        if header is None:
            raise SystemExit(f"{path} is no binary PPM of 8 bits; `convert {path} image.ppm` or ffmpeg makes one.")
        width, height = int(header[1]), int(header[2])
        pixels = np.frombuffer(content, np.uint8, offset=header.end())
        if len(pixels) < height * width * 3:
            raise SystemExit(f"{path} is truncated: {len(pixels)} bytes of {height * width * 3}.")
        image = pixels[: height * width * 3].reshape(height, width, 3)
    if image.dtype != np.uint8 or image.ndim != 3 or image.shape[2] != 3:
        raise SystemExit(f"{path} holds {image.dtype} {image.shape}; expected uint8 (height, width, 3).")
    return image


def check(network: Network) -> None:
    """Compare with what the network gave where the bundle was made."""
    with np.load(HERE / "check.npz") as known:
        images, expected = known["images"], known[network.path.name]
    found = network(images)
    distance = float(np.linalg.norm(found - expected) / np.linalg.norm(expected))
    times_ms: list[float] = []
    for _ in range(50):
        start = time.perf_counter()
        network(images[:1])
        times_ms.append(1000 * (time.perf_counter() - start))
    speed = f"{np.median(times_ms):.2f} ms an image"
    print(f"{network.path.name} in {network.runtime}: distance {distance:.2g} (at most {TOLERANCE}), {speed}")
    if distance > TOLERANCE:
        raise SystemExit("This machine computes something else.")


def write(contents: dict[Path, bytes]) -> None:
    """Write files whole, and all of them or none."""
    staged = {path: path.parent / f".{path.name}.{os.getpid()}" for path in contents}
    try:
        for path, content in contents.items():
            if path.is_dir():
                raise IsADirectoryError(errno.EISDIR, os.strerror(errno.EISDIR), str(path))
            staged[path].write_bytes(content)
        for path, staging in staged.items():
            os.replace(staging, path)
    except OSError as error:
        for staging in staged.values():
            staging.unlink(missing_ok=True)
        raise SystemExit(f"cannot write {error.filename2 or error.filename}: {error.strerror}") from None


def as_npy(array: np.ndarray) -> bytes:
    """Return the content of a .npy file."""
    content = io.BytesIO()
    np.save(content, array)
    return content.getvalue()


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("image", type=Path, nargs="?")
    parser.add_argument("--out", type=Path, default=Path("outputs.npy"), help="(default: outputs.npy)")
    parser.add_argument("--runtime", choices=sorted(RUNTIMES))
    parser.add_argument("--check", action="store_true", help="compare with known outputs, and measure")
    arguments = parser.parse_args()
    network = Network(model_for_this_machine(HERE), arguments.runtime)
    if arguments.check:
        return check(network)
    if arguments.image is None:
        parser.error("an image is needed, or --check")
    description, image = json.loads((HERE / "bundle.json").read_text()), read_image(arguments.image)
    size = description["image_size"]
    if image.shape != (size, size, 3):
        raise SystemExit(f"{arguments.image} has {image.shape[1]} x {image.shape[0]} pixels; expected {size} x {size}.")
    outputs = network(image[None])[0]
    write({arguments.out: as_npy(outputs)})
    for name, (start, stop) in description["outputs"].items():
        print(f"{name}: {' '.join(f'{value:.4g}' for value in outputs[start:stop])}")


if __name__ == "__main__":
    sys.exit(main())
