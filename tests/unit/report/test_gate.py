import json

import pytest

from leanface.cli import main
from leanface.errors import GateError
from leanface.report.gate import require_gates

GATES = {
    "ssim": {"limit": 0.982, "value": 0.99, "passed": True, "bound": "min"},
    "mse": {"limit": 0.005, "value": 0.004, "passed": True, "bound": "max"},
}


@pytest.fixture
def summary(tmp_path):
    def write(**changes):
        path = tmp_path / "summary.json"
        path.write_text(json.dumps({"gates": GATES | changes}))
        return path

    return write


def test_passed_gates_are_listed_with_their_limits(summary):
    assert require_gates(summary()) == ["ssim: 0.99 (at least 0.982), passed", "mse: 0.004 (at most 0.005), passed"]


def test_failed_and_undefined_gates_are_named_and_no_others(summary):
    path = summary(
        mse=GATES["mse"] | {"value": 0.006, "passed": False}, speedup=GATES["ssim"] | {"value": None, "passed": False}
    )
    with pytest.raises(GateError, match=r"2 of 3 gates failed") as error:
        require_gates(path)
    assert "mse: 0.006 (at most 0.005), failed" in str(error.value)
    assert "speedup: undefined" in str(error.value)
    assert "ssim:" not in str(error.value)


def test_the_command_fails_without_a_report(tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    assert main(["gate"]) == 1
    assert "summary.json" in capsys.readouterr().err
