"""What every test has: the project's root, an empty project, and small networks."""

import copy
import signal
import subprocess
import sys
from collections.abc import Callable, Generator
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple, cast

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from PIL import Image, ImageEnhance, ImageOps
from torch import Tensor, nn

from leanface.face.morphable_model import MorphableModel, load_morphable_model
from leanface.networks.resnet import FaceReconstructionNet, build_network, scaled_widths
from leanface.photos.load import PACKAGED_PHOTOS, load_photo
from tests import photo_files
from tests.settings import DATA, FEW

if TYPE_CHECKING:
    from leanface.serving.settings import Settings

ROOT = Path(__file__).parents[1]
SIZE = 64

SmoothImages = Callable[[int, int], Tensor]
"""(count, seed) -> random pictures with structure, (count,3,64,64) in [0,1]."""


def pytest_configure() -> None:
    """Whoever runs the tests in the background has SIGINT ignored, and the processes that tests start inherit that."""
    signal.signal(signal.SIGINT, signal.default_int_handler)


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """The modules that take minutes first: at the end, one worker would wait for the other's."""
    items.sort(key=lambda item: not {"pipeline", "sweep", "training"} & set(item.path.parts))


@pytest.hookimpl(wrapper=True)
def pytest_report_to_serializable() -> Generator[None, Any, Any]:
    """Escape file names that are not UTF-8, in logs and messages alike: a worker that sends one dies of it."""
    return _encodable((yield))


def _encodable(data: Any) -> Any:
    match data:
        case str():
            return data.encode("utf-8", "backslashreplace").decode()
        case dict():
            return {name: _encodable(value) for name, value in cast(dict[str, Any], data).items()}
        case list():
            return [_encodable(value) for value in cast(list[Any], data)]
        case tuple():  # why a module is skipped; xdist hashes it
            return tuple(_encodable(value) for value in cast(tuple[Any, ...], data))
        case _:
            return data


@pytest.fixture(scope="session")
def root() -> Path:
    """The project's root folder."""
    return ROOT


@pytest.fixture
def project(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """An empty project that has this one's params.yaml and conf/, as the working directory."""
    (tmp_path / "params.yaml").write_text((ROOT / "params.yaml").read_text())
    (tmp_path / "conf").symlink_to(ROOT / "conf")
    monkeypatch.chdir(tmp_path)
    monkeypatch.delenv("MLFLOW_TRACKING_URI", raising=False)
    monkeypatch.delenv("DVC_EXP_NAME", raising=False)
    return tmp_path


@pytest.fixture(scope="session")
def mlflow_database(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """An empty database of MLflow's, created once: its migrations take seconds. Copy it before use."""
    path = tmp_path_factory.mktemp("mlflow") / "mlflow.db"
    script = f"import mlflow; mlflow.MlflowClient('sqlite:///{path}').search_experiments()"
    subprocess.run([sys.executable, "-W", "ignore", "-c", script], check=True, capture_output=True)
    return path


def smooth_images(count: int, seed: int) -> Tensor:
    """Random pictures with structure, (count,3,64,64) in [0,1]: noise alone would average out."""
    coarse = torch.rand(count, 3, 6, 6, generator=torch.Generator().manual_seed(seed))
    return F.interpolate(coarse, size=SIZE, mode="bicubic").clamp(0.0, 1.0)


@pytest.fixture(scope="session", name="smooth_images")
def _smooth_images() -> SmoothImages:
    return smooth_images


@pytest.fixture(scope="session")
def shared_network() -> FaceReconstructionNet:
    """A quarter of ResNet-50's width, with batch norms that a training might have left, in eval mode.

    Made once; do not change it: `small_network` is a copy.
    """
    torch.manual_seed(0)
    network = build_network(scaled_widths(1 / 4))
    for module in network.modules():
        if isinstance(module, nn.BatchNorm2d):
            nn.init.uniform_(module.weight, 0.5, 1.5)
            nn.init.normal_(module.bias, std=0.2)
    network.train()
    with torch.no_grad():
        for seed in range(3):
            network(smooth_images(16, seed))
    return network.eval()


@pytest.fixture
def small_network(shared_network: FaceReconstructionNet) -> FaceReconstructionNet:
    """A copy of the shared network, to change."""
    return copy.deepcopy(shared_network)


class Exported(NamedTuple):
    """The small network in every form that a runtime reads: bundles and ONNX files, in one folder."""

    float_bundle: Path
    int8_bundle: Path
    fp32: Path
    fp16: Path
    int8: Path


@pytest.fixture(scope="session")
def exported(shared_network: FaceReconstructionNet, tmp_path_factory: pytest.TempPathFactory) -> Exported:
    """Made once; do not change the files."""
    # Imported here: ModelOpt and ONNX take seconds, and the process that only hands out tests loads this file too.
    from leanface import bundle
    from leanface.export.onnx import export_network, save_model
    from leanface.networks.quantized import Quantizer
    from leanface.quantization.fake_quantize import fake_quantize

    folder = tmp_path_factory.mktemp("exported")
    paths = Exported(*(folder / name for name in ("float", "int8", "fp32.onnx", "fp16.onnx", "int8.onnx")))
    network, quantizer = copy.deepcopy(shared_network), Quantizer(residual=True)
    spec = bundle.new_spec(network, SIZE)
    bundle.save_bundle(network, spec, paths.float_bundle)
    for path in (paths.fp32, paths.fp16):
        save_model(export_network(network, spec, path.stem, opset=19), path, {})
    quantized = fake_quantize(network, smooth_images(16, seed=0), quantizer)
    spec = spec.model_copy(update={"quantizer": quantizer.model_dump()})
    bundle.save_bundle(quantized, spec, paths.int8_bundle)
    save_model(export_network(quantized, spec, "int8", opset=19), paths.int8, {})
    return paths


@pytest.fixture(scope="session")
def service_settings(exported: Exported) -> "Settings":
    """Settings of the service, with the small network."""
    from leanface.serving.settings import Settings

    return Settings(model=exported.int8, runtime="openvino", threads=1, time_limit_s=30.0, watch_drift=False)


@pytest.fixture(scope="session")
def photo() -> bytes:
    """A photo with one face, as a file's content."""
    return photo_files.face()


@pytest.fixture(scope="session")
def faceless() -> bytes:
    return photo_files.faceless()


@pytest.fixture(scope="session")
def bomb() -> bytes:
    """A small file that would become 240 MB."""
    return photo_files.bomb()


@pytest.fixture(scope="session")
def hostile() -> list[bytes]:
    """Files that are no photos, or nearly are."""
    return photo_files.hostile()


@pytest.fixture
def images() -> Tensor:
    """Four pictures, (4,3,64,64) in [0,1]."""
    return smooth_images(4, seed=7)


@pytest.fixture(scope="session")
def model() -> MorphableModel:
    return load_morphable_model()


@pytest.fixture(scope="session")
def faces(model: MorphableModel, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Faces of `tests.settings.DATA`, from seed 0. Made once; do not change them."""
    from leanface.synthesis.prepare import prepare_faces

    folder = tmp_path_factory.mktemp("prepared") / "faces"
    prepare_faces(model, DATA, 0, folder)
    return folder


@pytest.fixture(scope="session")
def few_faces(model: MorphableModel, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Eight faces to train on, four of each other split. Made once; do not change them."""
    from leanface.synthesis.prepare import prepare_faces

    folder = tmp_path_factory.mktemp("few") / "faces"
    prepare_faces(model, FEW, 0, folder)
    return folder


class Front(NamedTuple):
    """A file in the Basel Face Model's layout, and which vertices of the packaged model it holds."""

    path: Path
    arrays: dict[str, np.ndarray]
    vertices: np.ndarray


@pytest.fixture(scope="session")
def front(model: MorphableModel, tmp_path_factory: pytest.TempPathFactory) -> Front:
    """The front of the packaged head as a BFM_model_front.mat. Made once; do not change the file."""
    kept = (model.mean_vertices[:, 2] > -0.5).numpy()
    number = np.cumsum(kept)  # counts from 1, as MATLAB does
    rows = np.repeat(kept, 3)
    triangles = model.triangles.numpy()
    points = np.ones(68, np.int64)
    points[[36, 39, 42, 45, 30, 48, 54]] = number[model.landmarks.numpy()[[0, 0, 1, 1, 2, 3, 4]]]
    arrays: dict[str, np.ndarray] = {
        "meanshape": model.mean_vertices.numpy()[kept].reshape(1, -1) + 0.3,
        "idBase": model.identity_basis.numpy().T[rows],
        "exBase": model.expression_basis.numpy().T[rows],
        "meantex": 255 * model.mean_albedo.numpy()[kept].reshape(1, -1),
        "texBase": 255 * model.albedo_basis.numpy().T[rows],
        "tri": number[triangles[kept[triangles].all(axis=1)]],
        "keypoints": points[None],
        "frontmask2_idx": number[kept & model.face_mask.numpy()][:, None],
    }
    from scipy.io import savemat

    path = tmp_path_factory.mktemp("basel") / "BFM_model_front.mat"
    savemat(path, arrays)
    return Front(path, arrays, kept.nonzero()[0])


@pytest.fixture(scope="session")
def photo_folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Twelve photos of the two packaged people: as they are, mirrored, moved, smaller, brighter, darker."""
    folder = tmp_path_factory.mktemp("photos")
    for name in PACKAGED_PHOTOS:
        photo = Image.fromarray(load_photo(name))
        variants = {
            "plain": photo,
            "mirrored": ImageOps.mirror(photo),
            "moved": photo.crop((20, 10, *photo.size)),
            "smaller": photo.resize((photo.width * 3 // 4, photo.height * 3 // 4)),
            "brighter": ImageEnhance.Brightness(photo).enhance(1.2),
            "darker": ImageEnhance.Brightness(photo).enhance(0.8),
        }
        (folder / name).mkdir()
        for variant, picture in variants.items():
            picture.save(folder / name / f"{variant}.png")
    return folder
