"""dvc.yaml's commands find their Python by themselves, and mean the same in every shell."""

import subprocess
from pathlib import Path

import pytest
import yaml

ROOT = Path(__file__).parents[2]
SCRIPT = ROOT / "tools/stage.sh"
SYSTEM = "/usr/bin:/bin"


def environment(folder: Path, name: str) -> Path:
    """A folder like a virtual environment's, whose Python says who it is, what it was asked and where its code is."""
    (folder / "bin").mkdir(parents=True)
    for program in ("python", "leanface"):
        path = folder / "bin" / program
        path.write_text(f'#!/bin/sh\necho {name} "$@"\necho "$PYTHONPATH"\n')
        path.chmod(0o755)
    return folder


def stage(cwd: Path, **variables: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        ["/bin/sh", SCRIPT, "export", "--variant", "x y"],
        cwd=cwd,
        env={"PATH": SYSTEM, **variables},
        capture_output=True,
        text=True,
        check=False,
    )


def test_without_any_environment_variable_it_takes_the_venv_of_the_folder_or_above(tmp_path: Path) -> None:
    environment(tmp_path / ".venv", "own")
    checkout = tmp_path / ".dvc/tmp/exps/standalone/tmp1"
    checkout.mkdir(parents=True)
    for folder in (tmp_path, checkout):
        done = subprocess.run(
            ["/bin/sh", SCRIPT, "prune"], cwd=folder, env={}, capture_output=True, text=True, check=True
        )
        assert done.stdout.splitlines() == ["own -P -m leanface stage prune", str(folder / "src")]


def test_an_activated_environment_comes_first_if_it_has_leanface(tmp_path: Path) -> None:
    environment(tmp_path / ".venv", "own")
    active = environment(tmp_path / "active", "active")
    (tmp_path / "other/bin").mkdir(parents=True)
    assert stage(tmp_path, VIRTUAL_ENV=str(active)).stdout.startswith("active -P")
    assert stage(tmp_path, CONDA_PREFIX=str(active)).stdout.startswith("active -P")
    assert stage(tmp_path, VIRTUAL_ENV=str(tmp_path / "other")).stdout.startswith("own -P")
    named = stage(tmp_path, VIRTUAL_ENV=str(active), LEANFACE_PYTHON=str(tmp_path / ".venv/bin/python"))
    assert named.stdout.startswith("own -P")


def test_a_copy_elsewhere_takes_that_of_dvcs_root_or_of_path(tmp_path: Path) -> None:
    home, copy = environment(tmp_path / "home/.venv", "home"), tmp_path / "copy"
    copy.mkdir()
    assert stage(copy, DVC_ROOT=str(home.parent)).stdout.startswith("home -P")
    found = stage(copy, PATH=f"{home}/bin:{SYSTEM}", PYTHONPATH="more")
    assert found.stdout.splitlines() == ["home -P -m leanface stage export --variant x y", f"{copy}/src:more"]


def test_without_leanface_it_says_what_to_do(tmp_path: Path) -> None:
    done = stage(tmp_path)
    assert done.returncode == 127
    assert "make setup" in done.stderr


@pytest.mark.parametrize("shell", ["/bin/sh", "/bin/bash"])
def test_its_exit_status_is_the_stages(tmp_path: Path, shell: str) -> None:
    path = environment(tmp_path / ".venv", "own") / "bin/python"
    path.write_text("#!/bin/sh\nexit 7\n")
    done = subprocess.run([shell, "-c", f"sh {SCRIPT} prune"], cwd=tmp_path, env={"PATH": SYSTEM}, check=False)
    assert done.returncode == 7


def test_no_command_needs_a_shell_of_one_family() -> None:
    pipeline = yaml.safe_load((ROOT / "dvc.yaml").read_text())
    variables = {name: value for entry in pipeline["vars"] for name, value in entry.items()}
    commands = [entry.get("do", entry)["cmd"] for entry in pipeline["stages"].values()]
    for command in (command.replace("${stage}", variables["stage"]) for command in commands):
        words = command.removeprefix("env -u OMP_WAIT_POLICY ").split()
        assert words[:2] == ["sh", "tools/stage.sh"], command  # no NAME=value, which a C shell does not know
        assert not set(command.replace("${key}", "")) & set("$`;&|<>()*?!'\"\\"), command
