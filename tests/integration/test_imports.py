"""What importing LeanFace loads, each in a fresh process."""

import subprocess
import sys


def test_importing_the_package_loads_nothing_heavy() -> None:
    script = "import sys, leanface; print(*sorted({'torch', 'numpy', 'scipy', 'openvino'} & set(sys.modules)))"
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == ""


def test_using_the_network_loads_no_part_of_training_and_of_the_pipeline() -> None:
    script = (
        "import sys, leanface.reconstruction\n"
        "heavy = {'torch', 'onnx', 'skimage', 'trimesh', 'safetensors', 'mlflow', 'dvc', 'hydra', 'av', 'matplotlib'}\n"
        "print(*sorted(heavy & set(sys.modules) | {m for m in sys.modules if m.startswith('leanface.training')}))\n"
    )
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == ""


def test_help_imports_nothing_heavy() -> None:
    script = (
        "import sys\n"
        "from leanface.cli import main\n"
        "try:\n    main(['--help'])\n"
        "except SystemExit as stop:\n    assert stop.code == 0\n"
        "print(*sorted({'torch', 'hydra', 'mlflow', 'dvc', 'numpy', 'pydantic'} & set(sys.modules)))\n"
    )
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=True)
    assert "stage" in done.stdout
    assert done.stdout.splitlines()[-1] == ""
