"""Using a network needs none of what only training needs: these packages are not installed with LeanFace alone."""

import subprocess
import sys
from pathlib import Path

from leanface.photos.load import photo_path

BLOCKED = ("torch", "scipy", "skimage", "onnx", "safetensors", "matplotlib", "dvc", "hydra", "mlflow", "trimesh")

PREFACE = f"""
import sys

class Missing:
    def find_spec(self, name, path=None, target=None):
        if name.partition(".")[0] in {BLOCKED}:
            raise ModuleNotFoundError(f"No module named {{name!r}}", name=name)

sys.meta_path.insert(0, Missing())
"""


def run(code: str, *arguments: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run([sys.executable, "-c", PREFACE + code, *arguments], capture_output=True, text=True)


def test_a_photo_becomes_meshes_and_pictures(tmp_path: Path) -> None:
    code = """
from leanface import LeanFace
from leanface.reconstruction.pictures import overlay, preview
from leanface.photos.load import load_photo

with LeanFace.load() as lean_face:
    photo = load_photo("astronaut")
    (face,) = lean_face.reconstruct(photo, texture_size=128)
    for suffix in ("glb", "obj", "ply"):
        face.save_mesh(f"{sys.argv[1]}/face.{suffix}")
    print(preview(face).shape, overlay(photo, [face]).shape)
"""
    done = run(code, str(tmp_path))
    assert done.returncode == 0, done.stderr
    assert done.stdout == "(384, 1152, 3) (512, 512, 3)\n"
    assert {file.suffix for file in tmp_path.iterdir()} == {".glb", ".obj", ".mtl", ".jpg", ".ply"}


def test_the_command_reconstructs(tmp_path: Path) -> None:
    code = "from leanface.cli import main\nsys.exit(main(sys.argv[1:]))"
    done = run(code, "reconstruct", str(photo_path("astronaut")), "--out", str(tmp_path), "--texture", "128")
    assert done.returncode == 0, done.stderr
    assert (tmp_path / "astronaut" / "face_1.glb").is_file()


def test_bench_measures_what_runs_and_says_what_the_rest_needs(tmp_path: Path) -> None:
    code = """
from pathlib import Path
from leanface.config import Benchmark
from leanface.paths import PACKAGED_MODEL
from leanface.runtime.bench import bench_file

settings = Benchmark(
    batches=(1,), streams=(1,), threads=1, warmup=1, window=3, windows_max=6, interval=9, energy_seconds=0.01
)
rows = bench_file(PACKAGED_MODEL, settings, original=Path(sys.argv[1]))
print(sorted(row.runtime for row in rows if row.ran))
print([row.not_run for row in rows if row.runtime == "torch"][0])
"""
    done = run(code, str(tmp_path))
    assert done.returncode == 0, done.stderr
    assert done.stdout.splitlines() == [
        "['onnxruntime', 'openvino']",
        "torch is not installed. This needs the extra 'train': pip install 'leanface[train]'",
    ]
