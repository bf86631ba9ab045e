"""What importing LeanFace loads, each in a fresh process."""

import subprocess
import sys


def loaded_by(script: str, *packages: str) -> set[str]:
    """Which of these packages a script has loaded, or modules of theirs."""
    ends = "\nimport sys\nfor name in sys.modules:\n    print('loaded', name)\n"
    done = subprocess.run([sys.executable, "-c", script + ends], capture_output=True, text=True, check=True)
    modules = [line.removeprefix("loaded ") for line in done.stdout.splitlines() if line.startswith("loaded ")]
    assert "leanface" in modules
    return {package for package in packages for module in modules if f"{module}.".startswith(f"{package}.")}


def test_importing_the_package_loads_nothing_heavy() -> None:
    assert loaded_by("import leanface", "torch", "numpy", "scipy", "openvino") == set()


def test_using_the_network_loads_no_part_of_training_and_of_the_pipeline() -> None:
    heavy = ("torch", "onnx", "skimage", "trimesh", "safetensors", "mlflow", "dvc", "hydra", "av", "matplotlib")
    assert loaded_by("import leanface.reconstruction", *heavy, "leanface.training") == set()


def test_help_imports_nothing_heavy() -> None:
    script = """
from leanface.cli import main
try:
    main(["--help"])
except SystemExit as stop:
    assert stop.code == 0
"""
    assert loaded_by(script, "torch", "hydra", "mlflow", "dvc", "numpy", "pydantic") == set()
