"""Commands find their project, and bare containers get what libraries look for."""

import os
import subprocess
import sys
import tempfile
from pathlib import Path

import pytest

from leanface.cli import main
from leanface.environment import enter_project, find_project
from leanface.errors import ConfigError
from leanface.face.compiled import compiled

SHOW = (
    "import os\nfrom leanface.environment import prepare_process\nprepare_process()\n"
    "for name in ('LOGNAME', 'XDG_CACHE_HOME', 'MPLCONFIGDIR', 'OMP_NUM_THREADS'): print(os.environ.get(name))\n"
)


def prepared(**variables: str) -> list[str]:
    """What `prepare_process` sets in a process that starts with these variables alone."""
    environment = {"PYTHONPATH": os.pathsep.join(sys.path), **variables}
    done = subprocess.run([sys.executable, "-c", SHOW], env=environment, capture_output=True, text=True, check=True)
    return done.stdout.split()


def test_the_project_is_the_nearest_folder_upwards_that_is_one(project: Path, tmp_path: Path) -> None:
    deep = project / "docs/decisions"
    deep.mkdir(parents=True)
    assert find_project(deep) == find_project(project) == project
    assert find_project(tmp_path.parent) is None


def test_a_command_in_a_subfolder_works_on_the_project(project: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (project / "docs").mkdir()
    monkeypatch.chdir(project / "docs")
    assert main(["stage", "configure"]) == 0
    assert (project / "reports/config.yaml").is_file()
    assert not (project / "docs/reports").exists()


@pytest.mark.parametrize("command", [["track"], ["gate"], ["compare"], ["promote", "x"], ["stage", "probe"], ["sweep"]])
def test_a_command_that_needs_a_project_is_refused_elsewhere_and_leaves_nothing(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], command: list[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    assert main(command) == 1
    assert "is not in a LeanFace project" in capsys.readouterr().err
    assert not list(tmp_path.iterdir())


def test_entering_fails_outside(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    with pytest.raises(ConfigError, match=r"params\.yaml and conf/"):
        enter_project()


def test_an_ordinary_user_s_environment_stays_as_it_is(tmp_path: Path) -> None:
    assert prepared(HOME=str(tmp_path), LOGNAME="me") == ["me", "None", "None", "None"]


def test_caches_get_a_private_folder_where_there_is_no_home(tmp_path: Path) -> None:
    places = [prepared(HOME="/nonexistent/home", LOGNAME="me", TMPDIR=str(tmp_path)) for _ in range(2)]
    assert places[0] == places[1], "each process would compile anew"
    name, cache, matplotlib, _ = places[0]
    assert (name, cache) == ("me", matplotlib)
    assert Path(cache).parent == tmp_path
    assert Path(cache).stat().st_mode & 0o777 == 0o700


def test_a_folder_that_others_can_write_to_is_not_used_for_caches(tmp_path: Path) -> None:
    taken = tmp_path / f"leanface-cache-{os.getuid()}"
    taken.mkdir()
    taken.chmod(0o777)
    _, cache, *_ = prepared(HOME="/nonexistent/home", LOGNAME="me", TMPDIR=str(tmp_path))
    assert Path(cache).is_dir()
    assert Path(cache) != taken


def test_what_numba_cannot_keep_on_disk_it_compiles_all_the_same() -> None:
    scope: dict[str, object] = {"compiled": compiled}
    exec("@compiled()\ndef double(x):\n    return 2 * x\n", scope)  # from no file, so beside none
    assert scope["double"](21) == 42  # pyright: ignore[reportCallIssue]


@pytest.mark.skipif(os.getuid() != 0, reason="only root can become another user")
def test_a_user_without_name_and_home_gets_both() -> None:
    script = f"import os, sys\nsys.path[:] = {sys.path!r}\nimport leanface.environment\nos.setuid(54321)\n{SHOW}"
    script += "print(os.environ['HOME'])\n"
    with tempfile.TemporaryDirectory() as folder:
        Path(folder).chmod(0o777)
        command = [sys.executable, "-c", script]
        done = subprocess.run(command, env={"TMPDIR": folder}, capture_output=True, text=True, check=True)
        name, *_, home = done.stdout.split()
        assert name == "54321"
        assert home == f"{folder}/leanface-cache-54321"
