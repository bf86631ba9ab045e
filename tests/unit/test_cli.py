"""The command line: errors in one line, exit codes, and a quick --help."""

import importlib.metadata
import os
from pathlib import Path

import pytest

from leanface import cli, paths
from leanface.cli import guarded, main
from leanface.cli.parser import GROUPS


def test_a_stage_runs(project, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["stage", "configure"]) == 0
    assert paths.CONFIG.is_file()
    assert capsys.readouterr().err == ""


def test_a_leanface_error_is_one_message_without_a_traceback(project, capsys: pytest.CaptureFixture[str]) -> None:
    paths.PARAMS.write_text("scale: huge\n")
    assert main(["stage", "configure"]) == 1
    assert capsys.readouterr().err.startswith("ConfigError: params.yaml: scale = 'huge'")


def test_a_file_that_cannot_be_read_is_named_in_one_line(project, capsys: pytest.CaptureFixture[str]) -> None:
    paths.PARAMS.unlink()
    paths.PARAMS.mkdir()
    assert main(["stage", "configure"]) == 1
    assert capsys.readouterr().err == "IsADirectoryError: [Errno 21] Is a directory: 'params.yaml'\n"
    assert main(["reconstruct", "x" * 5000, "--out", "out"]) == 1
    assert capsys.readouterr().err.endswith("x cannot be read: File name too long.\n")


def test_an_error_that_nobody_foresaw_is_not_hidden() -> None:
    with pytest.raises(ZeroDivisionError):
        guarded(lambda arguments: print(1 / len(arguments)), [])


@pytest.mark.parametrize(
    "arguments",
    [
        [],
        ["stage"],
        ["stage", "nothing"],
        ["stage", "export", "--variant", "nothing"],
        ["bench", "--streams", "0"],
        ["bench", "network.onnx", "--batches", "0"],
        ["bench", "network.onnx", "--streams", "two"],
        ["export", "exe", "folder"],
        ["completion", "fish"],
        ["serve", "--workers", "0"],
        ["auto", "--ms"],
        ["auto", "--ms", "1", "--runtime", "abacus"],
        ["auto", "--ms", "1", "--precision", "int4"],
    ],
)
def test_a_wrong_command_is_refused(arguments: list[str], capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit, match="2"):
        main(arguments)
    assert "usage: leanface" in capsys.readouterr().err


def test_a_file_that_is_not_there_cannot_be_measured(project, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["bench", "network.onnx"]) == 1
    assert capsys.readouterr().err.startswith("ArtifactError: network.onnx is missing")


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["auto"], "name at least one target"),
        (["auto", "--ms", "1 s"], "latency_ms is in ms"),
        (["auto", "--ms", "0"], "must be above 0"),
        (["auto", "--error", "vertex_cm=1"], "there is no measure vertex_cm. Did you mean vertex_mm"),
        (["auto", "--error", "vertex_mm=-1"], "is not better than the original"),
    ],
)
def test_targets_that_make_no_sense_change_nothing(
    project, arguments: list[str], message: str, capsys: pytest.CaptureFixture[str]
) -> None:
    before = paths.PARAMS.read_bytes()
    assert main(arguments) == 1
    error = capsys.readouterr().err
    assert error.startswith("ConfigError")
    assert message in error
    assert paths.PARAMS.read_bytes() == before


def test_a_bench_does_not_put_threads_to_sleep(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("OMP_WAIT_POLICY", "PASSIVE")
    assert main(["bench", str(tmp_path / "none.onnx")]) == 1
    assert "OMP_WAIT_POLICY" not in os.environ


@pytest.mark.parametrize(
    ("arguments", "suggestion"),
    [
        (["reconstrcut", "photo.jpg"], "did you mean reconstruct?"),
        (["reconstruct", "photo.jpg", "--out", "faces", "--textur_size", "512"], "did you mean --texture?"),
        (["stage", "benchmrk"], "did you mean benchmark?"),
        (["reconstruct", "photo.jpg", "--out", "faces", "--mesh", "gbl"], "did you mean glb?"),
    ],
)
def test_a_typo_is_answered_with_the_word_that_was_meant(
    arguments: list[str], suggestion: str, capsys: pytest.CaptureFixture[str]
) -> None:
    with pytest.raises(SystemExit, match="2"):
        main(arguments)
    assert suggestion in capsys.readouterr().err


@pytest.mark.parametrize("arguments", [["", "--out", "faces"], ["photo.jpg", "--out", ""]])
def test_an_empty_name_is_not_the_current_folder(arguments: list[str], capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit, match="2"):
        main(["reconstruct", *arguments])
    assert "expected a name, got an empty one" in capsys.readouterr().err


def test_help_lists_every_command_in_a_group(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit, match="0"):
        main(["--help"])
    shown = capsys.readouterr().out
    parser = cli._parser()
    assert set(parser.groups) == set(GROUPS)
    for entries in parser.groups.values():
        for name, text in entries:
            assert f"  {name} " in shown
            assert text in shown


def test_every_command_shows_an_example_of_itself() -> None:
    parser = cli._parser()
    for name, command in parser.commands.items():
        assert command.epilog is not None
        assert command.epilog.startswith("example:")
        assert f"leanface {name}" in command.epilog


def test_the_shell_gets_a_completion_script(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["completion", "bash"]) == 0
    script = capsys.readouterr().out
    assert "reconstruct" in script
    assert "--min-face" in script


def test_the_version_is_that_of_the_package(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit, match="0"):
        main(["--version"])
    assert capsys.readouterr().out == f"leanface {importlib.metadata.version('leanface')}\n"
