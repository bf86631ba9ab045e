"""The folder that needs no PyTorch: it runs where there is none, and computes what LeanFace computes."""

import importlib.util
import json
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from types import ModuleType

import numpy as np
import onnx
import pytest
import torch

from leanface import bundle, paths
from leanface.cli import main
from leanface.deployment.bundle import FACE_SCRIPT as SCRIPT
from leanface.deployment.bundle import export_bundle
from leanface.deployment.triton import export_triton
from leanface.device import has_vnni
from leanface.errors import ArtifactError
from leanface.export.onnx import export_network
from leanface.face.camera import camera_from_model, image_from_camera
from leanface.face.coefficients import split
from leanface.files import MARK, is_intact
from leanface.photos.alignment import TEMPLATE_224, align, template_from_landmarks3d
from leanface.photos.load import load_photo
from leanface.runtime import open_runtime

NEEDED = {"openvino": ("openvino",), "onnxruntime": ("onnxruntime", "flatbuffers")}
"""What of the installed packages each runtime may use, beside numpy."""

LANDMARKS = np.array([(187.0, 96.0), (250.0, 97.0), (217.0, 140.0), (192.0, 160.0), (246.0, 161.0)])


@pytest.fixture(scope="module")
def script(folder: Path) -> Iterator[ModuleType]:
    """The bundle's own script as a module; it finds the other one beside it."""
    spec = importlib.util.spec_from_file_location("standalone_script", folder / SCRIPT)
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    with pytest.MonkeyPatch.context() as patch:
        patch.syspath_prepend(folder)
        spec.loader.exec_module(module)
        yield module
    sys.modules.pop("leanface_network")


@pytest.fixture
def bare(tmp_path: Path):
    """runtime -> a Python that finds numpy and this runtime, and nothing else that is installed here."""

    def python(runtime: str) -> list[str]:
        installed = Path(np.__file__).parents[1]
        site = tmp_path / f"site-{runtime}"
        site.mkdir()
        for name in ("numpy", "numpy.libs", *NEEDED[runtime]):
            if (installed / name).exists():
                (site / name).symlink_to(installed / name)
        start = (
            f"import os, runpy, sys; sys.path.append({str(site)!r}); sys.argv = sys.argv[1:]; "
            "sys.path.insert(0, os.path.dirname(sys.argv[0])); "  # as Python does for a script
            "runpy.run_path(sys.argv[0], run_name='__main__')"
        )
        return [sys.executable, "-I", "-S", "-c", start]

    return python


def run(command: list[str], *arguments: object) -> subprocess.CompletedProcess[str]:
    return subprocess.run([*command, *map(str, arguments)], capture_output=True, text=True, check=False, timeout=120)


@pytest.mark.parametrize("runtime", NEEDED)
def test_it_runs_where_there_is_no_pytorch(folder: Path, bare, model, runtime: str, tmp_path: Path) -> None:
    python = bare(runtime)
    absent = tmp_path / "absent.py"
    absent.write_text(
        "import importlib.util as u; print([n for n in ('torch', 'scipy', 'PIL', 'leanface') if u.find_spec(n)])"
    )
    assert run(python, absent).stdout == "[]\n"

    checked = run(python, folder / SCRIPT, "--check")
    assert checked.returncode == 0, checked.stderr
    assert checked.stdout.startswith(f"model.onnx in {runtime}: distance")

    photo = tmp_path / "photo.ppm"
    pixels = load_photo("astronaut")
    photo.write_bytes(b"P6\n# a comment\n%d %d\n255\n" % (pixels.shape[1], pixels.shape[0]) + pixels.tobytes())
    points = [f"{x},{y}" for x, y in LANDMARKS]
    done = run(python, folder / SCRIPT, photo, "--landmarks", *points, "--out", tmp_path / "face.obj")
    assert done.returncode == 0, done.stderr
    lines = (tmp_path / "face.obj").read_text().splitlines()
    assert sum(line.startswith("v ") for line in lines) == model.vertex_count
    assert np.load(tmp_path / "face_coefficients.npy").shape == (257,)

    (tmp_path / "again").mkdir()
    (tmp_path / "again" / "face.obj").mkdir()
    refused = run(python, folder / SCRIPT, photo, "--landmarks", *points, "--out", tmp_path / "again" / "face.obj")
    assert (refused.returncode, refused.stderr) == (
        1, f"cannot write {tmp_path / 'again' / 'face.obj'}: Is a directory\n"
    )  # fmt: skip
    assert [path.name for path in (tmp_path / "again").iterdir()] == ["face.obj"]


@pytest.fixture(scope="module")
def flavored(exported, tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("deployed")
    network, spec = bundle.load_bundle(exported.int8_bundle)
    onnx.save(export_network(network, spec, "int8", 19, flavor="cpu"), folder / "cpu.onnx")
    export_bundle(
        exported.int8, folder / "bundle", cpu=folder / "cpu.onnx", morphable_model=paths.PACKAGED_MORPHABLE_MODEL
    )
    return folder


def test_it_takes_the_flavor_that_its_processor_computes_exactly(
    flavored: Path, script: ModuleType, bare, tmp_path: Path
) -> None:
    folder = flavored / "bundle"
    for flags, expected in {
        "flags : avx2 avx512f avx512_vnni": "model_cpu.onnx",
        "flags : avx2 avx_vnni": "model_cpu.onnx",
        "flags : avx2 avx512f": "model.onnx",
        "": "model.onnx",
    }.items():
        (tmp_path / "cpuinfo").write_text(flags + "\n")
        assert script.model_for_this_machine(folder, tmp_path / "cpuinfo") == folder / expected
    assert script.model_for_this_machine(folder, tmp_path / "absent").name == "model.onnx"
    for runtime in NEEDED:
        checked = run(bare(runtime), folder / SCRIPT, "--check")
        assert checked.returncode == 0, checked.stderr
        name = "model_cpu.onnx" if has_vnni() else "model.onnx"
        assert checked.stdout.startswith(f"{name} in {runtime}: distance")


def test_a_file_that_not_every_processor_computes_is_no_bundle_by_itself(flavored: Path, tmp_path: Path) -> None:
    with pytest.raises(ArtifactError, match="of flavor cpu, which processors without VNNI compute wrongly"):
        export_bundle(flavored / "cpu.onnx", tmp_path / "bundle", morphable_model=paths.PACKAGED_MORPHABLE_MODEL)
    assert not (tmp_path / "bundle").exists()


def test_its_coefficients_are_the_runtimes_own(folder: Path, script: ModuleType, exported) -> None:
    crops = np.random.default_rng(0).integers(0, 256, (3, 64, 64, 3), np.uint8)
    images = crops.transpose(0, 3, 1, 2).astype(np.float32) / 255
    with open_runtime("openvino", exported.int8) as runtime:
        expected = runtime.run(np.ascontiguousarray(images))
    assert np.allclose(script.Network(folder / "model.onnx", "openvino")(crops), expected, atol=1e-4)


def test_it_decodes_as_leanface_does(folder: Path, script: ModuleType, model) -> None:
    coefficients = 0.5 * torch.randn(257, generator=torch.Generator().manual_seed(0))
    face = script.MorphableModel(folder / "morphable_model.npz").decode(coefficients.numpy(), 112)
    parts = split(coefficients[None])
    vertices = model.vertices(parts.identity, parts.expression)
    posed = camera_from_model(vertices, parts.angles_rad, parts.translation)
    assert np.abs(face.vertices - vertices[0].numpy()).max() < 2e-4  # dm: 0.02 mm
    assert np.abs(face.posed - posed[0].numpy()).max() < 2e-4
    assert np.abs(face.colors - model.albedo(parts.albedo)[0].numpy()).max() < 1e-3
    assert np.abs(face.pixels - image_from_camera(posed, 112)[0, :, :2].numpy()).max() < 0.02


@pytest.mark.parametrize("zoom", [1, 3])
def test_it_aligns_as_leanface_does(folder: Path, script: ModuleType, model, zoom: int) -> None:
    """Shrunk and enlarged."""
    photo = np.ascontiguousarray(load_photo("astronaut")[::zoom, ::zoom])
    template = script.MorphableModel(folder / "morphable_model.npz").template
    assert np.array_equal(template, template_from_landmarks3d(model.mean_vertices[model.landmarks].numpy()))
    assert np.allclose(template, TEMPLATE_224, atol=0.1)
    expected, _ = align(photo, LANDMARKS / zoom, template, 112)
    found = script.align(photo, LANDMARKS / zoom, template, 112)
    assert np.abs(found.astype(int) - expected).mean() < 0.01
    assert np.abs(found.astype(int) - expected).max() <= 1


@pytest.mark.parametrize(
    "content", [b"", b"P6", b"P5 2 2 255\n0000", b"P6 2 2 65535\n", b"P6 2 2 255\n0000", b"\x89PNG\r\n"]
)
def test_what_is_no_photo_is_refused(script: ModuleType, tmp_path: Path, content: bytes) -> None:
    path = tmp_path / "photo.ppm"
    path.write_bytes(content)
    with pytest.raises(SystemExit, match=r"photo\.ppm is"):
        script.read_image(path)


@pytest.mark.parametrize("content", [None, b"", b"text", b"\x93NUMPY\x01\x00\x76\x00{"])
def test_an_array_that_cannot_be_read_is_refused(script: ModuleType, tmp_path: Path, content: bytes | None) -> None:
    path = tmp_path / "crop.npy"
    if content is not None:
        path.write_bytes(content)
    with pytest.raises(SystemExit, match=r"cannot read .*crop\.npy"):
        script.read_image(path)


@pytest.mark.parametrize(
    ("landmarks", "says"),
    [("a b c d e", "invalid point"), ("nan,1 2,2 3,3 4,4 5,6", "invalid point"), ("1,1 2,1 3,1 4,1 5,1", "no face")],
)
def test_landmarks_that_are_none_are_refused(folder: Path, tmp_path: Path, landmarks: str, says: str) -> None:
    np.save(tmp_path / "photo.npy", np.zeros((9, 9, 3), np.uint8))
    command = [sys.executable, str(folder / "reconstruct.py"), "photo.npy", "--landmarks", *landmarks.split()]
    done = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True, check=False)
    assert done.returncode != 0
    assert says in done.stderr
    assert "Traceback" not in done.stderr
    assert not (tmp_path / "face.obj").exists()


def test_a_network_that_computes_something_else_is_found(folder: Path, script: ModuleType) -> None:
    network = script.Network(folder / "model.onnx", "openvino")
    plain = network.run
    network.run = lambda images: 1.1 * plain(images)
    with pytest.raises(SystemExit, match="something else"):
        script.check(network)


def test_the_folder_says_what_it_holds(folder: Path) -> None:
    content = json.loads((folder / "bundle.json").read_text())
    assert (content["image_size"], content["precision"]) == (64, "int8")
    files = {path.relative_to(folder).as_posix() for path in folder.rglob("*") if path.is_file()}
    files = {name for name in files if "__pycache__" not in name}
    assert set(content["sha256"]) | {"bundle.json", MARK} == files
    assert (content["task"], content["outputs"]["translation"]) == ("face", [254, 257])


def test_the_current_folder_and_a_link_to_an_empty_one_are_filled(
    exported, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name in ("here", "elsewhere"):
        (tmp_path / name).mkdir()
    (tmp_path / "link").symlink_to("elsewhere")
    monkeypatch.chdir(tmp_path / "here")
    for _ in range(2):
        for folder in (Path(), tmp_path / "link"):
            export_bundle(exported.int8, folder, morphable_model=paths.PACKAGED_MORPHABLE_MODEL)
    assert {path.name for path in tmp_path.iterdir()} == {"here", "elsewhere", "link"}
    for name in ("here", "elsewhere"):
        assert is_intact(tmp_path / name)
        assert (tmp_path / name / "reconstruct.py").exists()
    with pytest.raises(ArtifactError, match="holds a standalone bundle, where a Triton repository should go"):
        export_triton(exported.int8, tmp_path / "none.plan", Path(), batch_max=8)


def test_something_else_in_the_folder_stays(exported, tmp_path: Path) -> None:
    (tmp_path / "thesis.txt").touch()
    with pytest.raises(ArtifactError, match="LeanFace did not make"):
        export_bundle(exported.int8, tmp_path, morphable_model=paths.PACKAGED_MORPHABLE_MODEL)
    assert [path.name for path in tmp_path.iterdir()] == ["thesis.txt"]


def test_the_command_exports_for_other_software(exported, tmp_path, capsys: pytest.CaptureFixture[str]) -> None:
    for form, mark in (("bundle", "reconstruct.py"), ("triton", "leanface/config.pbtxt")):
        assert main(["export", form, str(tmp_path / form), "--model", str(exported.int8)]) == 0
        assert (tmp_path / form / mark).is_file()
        assert str(tmp_path / form) in capsys.readouterr().out
