"""A command that misses a package names the extra that brings it."""

import tomllib
from pathlib import Path

import pytest

from leanface.cli import guarded
from leanface.extras import EXTRAS, missing_message

PROJECT = tomllib.loads((Path(__file__).parents[2] / "pyproject.toml").read_text())["project"]


@pytest.mark.parametrize(
    ("module", "extra"),
    [("torch_pruning", "train"), ("dvc.repo", "train"), ("fastapi", "serve"), ("av", "video"), ("s3fs", "batch")],
)
def test_a_missing_package_is_answered_with_its_extra(
    module: str, extra: str, capsys: pytest.CaptureFixture[str]
) -> None:
    def command(argv: list[str]) -> None:
        raise ModuleNotFoundError(f"No module named {module!r}", name=module)

    assert guarded(command, []) == 1
    assert f"pip install 'leanface[{extra}]'" in capsys.readouterr().err


@pytest.mark.parametrize("command", ["serve", "demo"])
def test_a_command_with_an_extra_of_its_own_names_that_one(command: str) -> None:
    for package in EXTRAS[command]:
        assert f"leanface[{command}]" in str(missing_message(package, command))
    assert "leanface[train]" in str(missing_message("torch", "reconstruct"))


def test_a_missing_module_of_ours_is_a_traceback() -> None:
    def command(argv: list[str]) -> None:
        raise ModuleNotFoundError("No module named 'leanface.nowhere'", name="leanface.nowhere")

    with pytest.raises(ModuleNotFoundError):
        guarded(command, [])
    assert missing_message(None) is None


def test_every_extra_that_is_named_exists() -> None:
    assert set(EXTRAS) <= set(PROJECT["optional-dependencies"])
