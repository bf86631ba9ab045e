"""`leanface export bundle`: a folder that runs with numpy and one runtime, without PyTorch and without LeanFace."""

import shutil
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import torch
from jaxtyping import UInt8

from leanface.config import FACE
from leanface.errors import ArtifactError
from leanface.face.morphable_model import MorphableModel, load_morphable_model
from leanface.files import digest, staged, write_json
from leanface.photos.alignment import template_from_landmarks3d, to_input
from leanface.photos.crops import crop_faces
from leanface.photos.detector import FaceDetector
from leanface.photos.face_network import FACE_NETWORKS
from leanface.photos.load import load_photo
from leanface.runtime import open_best
from leanface.runtime.onnx_file import ExportedNetwork, read_onnx

SCRIPTS = Path(__file__).with_name("standalone")
"""Not a package: its files go into bundles, and find each other there."""

CPP = SCRIPTS / "cpp"
"""A program that finds the face as well; for that task alone."""

NETWORK_SCRIPT, FACE_SCRIPT = "leanface_network.py", "reconstruct.py"
MODEL, CPU_MODEL = "model.onnx", "model_cpu.onnx"
"""As leanface_network.py calls them."""

CHECKED_PHOTO = "astronaut"
CHECKED_IMAGES = 4
KIND = "standalone bundle"
"""Of result, see `leanface.files.staged`."""

FACE_README = """# LeanFace, on its own

`{script}` reads a 3D face out of a photo. It needs Python 3.10 or newer, `numpy`, and `openvino` or `onnxruntime`:

    pip install numpy openvino        # on x86 and ARM processors; OpenVINO computes INT8 as INT8
    python {script} --check
    python {script} photo.ppm --landmarks 120,95 164,94 141,123 124,147 160,146 --out face.obj

In C++ there is a face detector, too: `read_face` takes a JPEG and prints the coefficients. It needs CMake, a compiler,
libjpeg (Debian, Ubuntu: `libjpeg-dev`), and OpenVINO with its headers, which `pip install openvino` brings:

    cmake -S cpp -B build -DOpenVINO_DIR=$(python -c "import openvino; print(openvino.__path__[0])")/cmake
    cmake --build build
    build/read_face photo.jpg .

`python {script} --help` and the script's first lines say more. Its functions can be imported, too:
`Network(path)(crops)` gives coefficients, `MorphableModel(path).decode(coefficients, size)` the face.

| | |
|---|---|
| `model.onnx` | the network, {precision}, for crops of {size} px |{cpu}
| `leanface_network.py` | runs it; `{script}` needs it |
| `morphable_model.npz` | what its 257 coefficients mean: {vertices} vertices, bases in float16 |
| `check.npz` | a crop and its coefficients, computed where this folder was made ({runtimes}) |
| `cpp/` | the program in C++ |
| `short_range.onnx`, `landmarks.onnx` | find the face for `read_face`; MediaPipe's, under `mediapipe.LICENSE` |
| `alignment.txt` | the crop's size, and where eyes, nose and mouth lie in a crop of 224 px |
| `bundle.json` | sizes and checksums |

The Python script has no face detector: any that finds eyes, nose and mouth will do.
"""

README = """# A compressed network, on its own

`{script}` runs a network of task `{task}`. It needs Python 3.10 or newer, `numpy`, and `openvino` or `onnxruntime`:

    pip install numpy openvino        # on x86 and ARM processors; OpenVINO computes INT8 as INT8
    python {script} --check
    python {script} image.ppm --out outputs.npy

The script's first lines say more, and how to use it from Python.

| | |
|---|---|
| `model.onnx` | the network, {precision}, for images of {size} px |{cpu}
| `check.npz` | images of noise and the outputs for them, computed where this folder was made ({runtimes}) |
| `bundle.json` | sizes, where each of the {outputs} outputs begins and ends, and checksums |
"""

CPU_ROW = """
| `model_cpu.onnx` | the same for x86 processors with VNNI, where the script takes it by itself: closer, as fast |"""


def export_bundle(
    onnx_path: Path, folder: Path, *, cpu: Path | None = None, morphable_model: Path | None = None
) -> str:
    """Write the folder; it must be missing, empty, or one that this function wrote; return its script's name.

    Args:
        onnx_path: what stage export wrote; an INT8 file of flavor tensorrt, which is right on every processor.
        cpu: the same network in flavor cpu, which the script takes where it is exact.
        morphable_model: what the coefficients of a face's network belong to; for that task alone.

    Raises:
        ArtifactError: a file is missing, damaged or of the other flavor, or the folder holds something else.
        BackendError: no runtime can run the network here, so there is nothing to check against.
    """
    exported = read_onnx(onnx_path)
    if exported.flavor == "cpu":
        raise ArtifactError(
            f"{onnx_path} is of flavor cpu, which processors without VNNI compute wrongly: name the same network's "
            "file of flavor tensorrt (variant quantized_int8)."
        )
    if (exported.task == FACE) != (morphable_model is not None):
        remedy = "name its morphable model" if exported.task == FACE else "leave out the morphable model"
        raise ArtifactError(f"{onnx_path} is of task {exported.task}: {remedy}.")
    model = None if morphable_model is None else load_morphable_model(morphable_model)
    networks = {MODEL: onnx_path} | ({} if cpu is None else {CPU_MODEL: cpu})
    script, readme = (NETWORK_SCRIPT, README) if model is None else (FACE_SCRIPT, FACE_README)
    with staged(folder.resolve(), KIND) as staging:
        for name, path in networks.items():
            onnx.save(onnx.load(path), staging / name)  # with weights that lie in another file
        if model is not None:
            np.savez_compressed(staging / "morphable_model.npz", allow_pickle=False, **_arrays(model))
            _add_program(staging, _template(model), exported.image_size)
        images = _noise(exported.image_size) if model is None else _crop(model, exported.image_size)
        runtimes = _write_check(networks, images, staging / "check.npz")
        for name in {NETWORK_SCRIPT, script}:
            shutil.copyfile(SCRIPTS / name, staging / name)
        text = readme.format(
            script=script,
            task=exported.task,
            precision=exported.precision,
            size=exported.image_size,
            outputs=exported.output_count,
            vertices=0 if model is None else model.vertex_count,
            runtimes=", ".join(f"`{name}` by {runtime}" for name, runtime in runtimes.items()),
            cpu="" if cpu is None else CPU_ROW,
        )
        (staging / "README.md").write_text(text)
        written = sorted(path for path in staging.rglob("*") if path.is_file())
        digests = {path.relative_to(staging).as_posix(): digest(path) for path in written}
        write_json(staging / "bundle.json", _description(exported) | {"sha256": digests})
    return script


def _add_program(folder: Path, template: np.ndarray, size: int) -> None:
    """Add the program in C++, and what it needs to find and cut out a face."""
    shutil.copytree(CPP, folder / CPP.name)
    for name in ("short_range.onnx", "landmarks.onnx", "mediapipe.LICENSE"):
        shutil.copyfile(FACE_NETWORKS / name, folder / name)
    np.savetxt(folder / "alignment.txt", template, "%.9g", header=str(size), comments="")


def _description(exported: ExportedNetwork) -> dict[str, Any]:
    return {
        "task": exported.task,
        "image_size": exported.image_size,
        "precision": exported.precision,
        "outputs": exported.outputs,
    }


def _arrays(model: MorphableModel) -> dict[str, np.ndarray]:
    shape = torch.cat([model.identity_basis, model.expression_basis])
    return {
        "mean_vertices": model.mean_vertices.numpy(),
        "mean_albedo": model.mean_albedo.numpy(),
        "shape_basis": shape.numpy().astype(np.float16),
        "albedo_basis": model.albedo_basis.numpy().astype(np.float16),
        "triangles": model.triangles.numpy().astype(np.int32),
        "template": _template(model),
    }


def _template(model: MorphableModel) -> np.ndarray:
    return template_from_landmarks3d(model.mean_vertices[model.landmarks].numpy())


def _crop(model: MorphableModel, size: int) -> UInt8[np.ndarray, "1 size size 3"]:
    """Crop a real face."""
    return crop_faces(load_photo(CHECKED_PHOTO), FaceDetector(), _template(model), size)[0].crop[None]


def _noise(size: int) -> UInt8[np.ndarray, "count size size 3"]:
    return np.random.default_rng(0).integers(0, 256, (CHECKED_IMAGES, size, size, 3), np.uint8)


def _write_check(
    networks: Mapping[str, Path], images: UInt8[np.ndarray, "count size size 3"], path: Path
) -> dict[str, str]:
    """Write images and each network's outputs for them in the best runtime; return the runtimes' names."""
    outputs: dict[str, np.ndarray] = {}
    runtimes: dict[str, str] = {}
    inputs = np.concatenate([to_input(image)[None] for image in images])
    for name, network in networks.items():
        with open_best({"openvino": network, "onnxruntime": network}).runtime as runtime:
            outputs[name] = np.concatenate([runtime.run(one[None]) for one in inputs])
            runtimes[name] = runtime.name
    np.savez_compressed(path, allow_pickle=False, images=images, **outputs)
    return runtimes
