"""`leanface export bundle`: a folder that runs with numpy and one runtime, without PyTorch and without LeanFace."""

import hashlib
import shutil
from collections.abc import Mapping
from pathlib import Path

import numpy as np
import onnx
import torch

from leanface.deployment import standalone
from leanface.errors import ArtifactError
from leanface.face.morphable_model import MorphableModel, load_morphable_model
from leanface.files import staged, write_json
from leanface.photos.alignment import template_from_landmarks3d, to_input
from leanface.photos.crops import crop_faces
from leanface.photos.detector import FaceDetector
from leanface.photos.load import load_photo
from leanface.reconstruction.network import require_face
from leanface.runtime import open_best
from leanface.runtime.onnx_file import read_onnx

SCRIPT = "reconstruct.py"
CHECKED_PHOTO = "astronaut"
KIND = "standalone bundle"
"""Of result, see `leanface.files.staged`."""

README = """# LeanFace, on its own

`{script}` reads a 3D face out of a photo. It needs Python 3.10 or newer, `numpy`, and `openvino` or `onnxruntime`:

    pip install numpy openvino        # on x86 and ARM processors; OpenVINO computes INT8 as INT8
    python {script} --check
    python {script} photo.ppm --landmarks 120,95 164,94 141,123 124,147 160,146 --out face.obj

`python {script} --help` and the script's first lines say more. Its functions can be imported, too:
`Network(path)(crops)` gives coefficients, `MorphableModel(path).decode(coefficients, size)` the face.

| | |
|---|---|
| `model.onnx` | the network, {precision}, for crops of {size} px |{cpu}
| `morphable_model.npz` | what its 257 coefficients mean: {vertices} vertices, bases in float16 |
| `check.npz` | a crop and its coefficients, computed where this folder was made ({runtimes}) |
| `bundle.json` | sizes and checksums |

There is no face detector in here: any that finds eyes, nose and mouth will do.
"""

CPU_ROW = """
| `model_cpu.onnx` | the same for x86 processors with VNNI, where the script takes it by itself: closer, as fast |"""


def export_bundle(onnx_path: Path, morphable_model: Path, folder: Path, *, cpu: Path | None = None) -> None:
    """Write the folder; it must be missing, empty, or one that this function wrote.

    Args:
        onnx_path: what stage export wrote; an INT8 file of flavor tensorrt, which is right on every processor.
        morphable_model: what the network's coefficients belong to.
        cpu: the same network in flavor cpu, which the script takes where it is exact.

    Raises:
        ArtifactError: a file is missing, damaged or of the other flavor, or the folder holds something else.
        BackendError: no runtime can run the network here, so there is nothing to check against.
    """
    exported, model = read_onnx(onnx_path), load_morphable_model(morphable_model)
    require_face(onnx_path, exported.task)
    if exported.flavor == "cpu":
        raise ArtifactError(
            f"{onnx_path} is of flavor cpu, which processors without VNNI compute wrongly: name the same network's "
            "file of flavor tensorrt (variant quantized_int8)."
        )
    networks = {standalone.MODEL: onnx_path} | ({} if cpu is None else {standalone.CPU_MODEL: cpu})
    with staged(folder.resolve(), KIND) as staging:
        for name, path in networks.items():
            onnx.save(onnx.load(path), staging / name)  # with weights that lie in another file
        np.savez_compressed(staging / "morphable_model.npz", allow_pickle=False, **_arrays(model))
        runtimes = _write_check(networks, model, exported.image_size, staging / "check.npz")
        shutil.copyfile(standalone.__file__, staging / SCRIPT)
        text = README.format(
            script=SCRIPT,
            precision=exported.precision,
            size=exported.image_size,
            vertices=model.vertex_count,
            runtimes=", ".join(f"`{name}` by {runtime}" for name, runtime in runtimes.items()),
            cpu="" if cpu is None else CPU_ROW,
        )
        (staging / "README.md").write_text(text)
        digests = {path.name: hashlib.sha256(path.read_bytes()).hexdigest() for path in sorted(staging.iterdir())}
        content = {"image_size": exported.image_size, "precision": exported.precision, "sha256": digests}
        write_json(staging / "bundle.json", content)


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


def _write_check(networks: Mapping[str, Path], model: MorphableModel, size: int, path: Path) -> dict[str, str]:
    """Write a real crop and each network's coefficients of it in the best runtime; return the runtimes' names."""
    face = crop_faces(load_photo(CHECKED_PHOTO), FaceDetector(), _template(model), size)[0]
    coefficients: dict[str, np.ndarray] = {}
    runtimes: dict[str, str] = {}
    for name, network in networks.items():
        with open_best({"openvino": network, "onnxruntime": network}).runtime as runtime:
            coefficients[name] = runtime.run(to_input(face.crop)[None])
            runtimes[name] = runtime.name
    np.savez_compressed(path, allow_pickle=False, crops=face.crop[None], **coefficients)
    return runtimes
