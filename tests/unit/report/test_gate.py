import json

import pytest

from leanface.cli import main
from leanface.errors import ArtifactError, GateError
from leanface.report.gate import require_gates

GATES = {
    "ssim": {"limit": 0.982, "value": 0.99, "interval": [0.989, 0.991], "passed": True, "bound": "min"},
    "size_ratio": {"limit": 15, "value": 16, "interval": None, "passed": True, "bound": "min"},
}
SUMMARY = {"scale": "x", "image_size": 112, "device": {}, "variants": {}, "not_measured": {}, "not_run": []}


@pytest.fixture
def summary(tmp_path):
    def write(**changes):
        path = tmp_path / "summary.json"
        path.write_text(json.dumps(SUMMARY | {"gates": GATES | changes}))
        return path

    return write


def test_passed_gates_are_listed_with_their_intervals_and_limits(summary):
    assert require_gates(summary()) == [
        "ssim: 0.99 (95 % interval 0.989 to 0.991, all of it at least 0.982), passed",
        "size_ratio: 16 (at least 15), passed",
    ]


def test_failed_and_undefined_gates_are_named_and_no_others(summary):
    path = summary(
        mse={"limit": 0.005, "value": 0.004, "interval": [0.003, 0.006], "passed": False, "bound": "max"},
        speedup={"limit": 10, "value": 12, "interval": None, "passed": False, "bound": "min"},
        ssim=GATES["ssim"] | {"value": None, "interval": None, "passed": False},
    )
    with pytest.raises(GateError, match=r"3 of 4 gates failed") as error:
        require_gates(path)
    assert "mse: 0.004 (95 % interval 0.003 to 0.006, all of it at most 0.005), failed" in str(error.value)
    assert "speedup: 12 (at least 10, but measured too briefly for an interval), failed" in str(error.value)
    assert "ssim: undefined" in str(error.value)
    assert "size_ratio" not in str(error.value)


def test_another_versions_summary_is_refused_in_a_line(tmp_path):
    path = tmp_path / "summary.json"
    path.write_text(json.dumps({"gates": {"ssim": {"limit": 1, "value": 1, "passed": True, "bound": "min"}}}))
    with pytest.raises(ArtifactError, match="another version of LeanFace"):
        require_gates(path)


def test_the_command_fails_without_a_report(project, capsys):
    assert main(["gate"]) == 1
    assert "summary.json" in capsys.readouterr().err
