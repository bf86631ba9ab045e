"""What the tables of several networks say, and where a ratio says nothing."""

from pathlib import Path
from typing import Any

import numpy as np
import pytest

from tools.studies.own_network_page import STATES, ratio_of_means, write_page


def errors(teacher: float, truth: float) -> dict[str, list[float]]:
    """Of samples of which every second one is twice as wrong as the others."""
    shape = np.tile([2 / 3, 4 / 3], 50)
    return {"teacher": list(teacher * shape), "truth": list(truth * shape), "float": list(teacher * shape)}


def found(compensated: float) -> dict[str, Any]:
    of_state = dict(zip(STATES, (errors(2.0, 0.5), errors(1.0, 0.3), errors(compensated, 0.1)), strict=True))
    return {
        "error": "truth_error",
        "teacher_error": "teacher_kl",
        "original": {"errors": errors(0.0, 0.1)},
        "pruned": {
            "macs": 0.25, "parameters": 0.3, "original_macs": 5e6, "ridge": 0.1, "left": {"conv": "it has no bias"},
            "errors": of_state,
        },
        "trained": {state: {"errors": each} for state, each in of_state.items()},
        "int8": {
            "LeanFace PTQ": {"errors": errors(0.1, 0.1), "size_bytes": 200_000},
            "NNCF quantize": {"not_run": "NNCF is not installed"},
        },
    }  # fmt: skip


def test_the_tables_say_where_the_error_was_halved(tmp_path: Path) -> None:
    write_page({"small": found(0.4), "other": found(0.6)}, tmp_path)
    lines = (tmp_path / "tables.md").read_text().splitlines()
    rows = {line.split(" | ")[0].removeprefix("| "): line for line in lines if "KL divergence to the original" in line}
    assert "0.4 (0.4 to 0.4) | yes" in rows["small"]
    assert "0.6 (0.6 to 0.6) | no" in rows["other"]
    assert any("`not_run`: NNCF is not installed" in line for line in lines)
    assert "- small, conv: it has no bias" in lines
    assert (tmp_path / "own_network.png").is_file()


def test_a_ratio_of_means_is_of_the_same_samples() -> None:
    below = np.random.default_rng(0).exponential(size=400)
    ratio = ratio_of_means(list(below / 2), list(below))
    assert ratio == pytest.approx((0.5, 0.5, 0.5))
    noisy = ratio_of_means(list(np.random.default_rng(1).exponential(size=400) / 2), list(below))
    assert 0.3 < noisy.low < noisy.value < noisy.high < 0.7
    assert np.isnan(ratio_of_means([1.0, 1.0], [-1.0, 1.0]).value)
