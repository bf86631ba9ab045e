import json
from pathlib import Path

import pytest

from leanface.errors import ArtifactError, ConfigError
from leanface.pruning.allocation import Errors, read_errors, sensitive_counts
from leanface.pruning.scopes import Counts

CHANNELS = {"robust": 64, "fragile": 64, "cheap": 64}
WORTH = {"robust": 0.45, "fragile": 0.45, "cheap": 0.1}


def macs(counts: Counts) -> float:
    return sum(share * counts.get(name, 64) / 64 for name, share in WORTH.items())


def errors_of(**slopes: float) -> Errors:
    return {name: {ratio: slope * ratio for ratio in (0.25, 0.5, 0.75)} for name, slope in slopes.items()}


def allot(errors: Errors, budget: float, max_ratio: float = 0.9) -> Counts:
    return sensitive_counts(CHANNELS, errors, macs, budget, 4, max_ratio)


def test_fragile_groups_lose_less() -> None:
    counts = allot(errors_of(robust=1.0, fragile=2.0, cheap=1.0), 0.5)
    assert counts["robust"] < counts["fragile"] < 64
    assert counts["robust"] < counts["cheap"]  # whose channels save little


def test_equal_groups_lose_alike() -> None:
    counts = allot(errors_of(robust=1.0, fragile=1.0, cheap=1.0), 0.5)
    assert counts["robust"] == counts["fragile"]


@pytest.mark.parametrize("budget", [0.2, 0.4, 0.6, 0.8])
def test_budget_is_used_up_but_kept(budget: float) -> None:
    counts = allot(errors_of(robust=1.0, fragile=1.5, cheap=1.2), budget)
    assert budget - 3 * 4 / 64 <= macs(counts) <= budget
    assert all(count % 4 == 0 for count in counts.values())


def test_what_costs_nothing_goes_as_far_as_it_may() -> None:
    assert allot(errors_of(robust=0.0, fragile=1.0, cheap=1.0), 0.9, max_ratio=0.75)["robust"] == 16


def test_budget_out_of_reach_is_refused() -> None:
    with pytest.raises(ConfigError, match=r"0\.25 of the MACs at least.*0\.2 were asked"):
        allot(errors_of(robust=1.0, fragile=1.0, cheap=1.0), 0.2, max_ratio=0.75)


def test_group_that_was_not_measured_is_named() -> None:
    with pytest.raises(ArtifactError, match="cheap"):
        allot(errors_of(robust=1.0, fragile=1.0), 0.5)


def test_reads_what_analyze_writes(tmp_path: Path) -> None:
    path = tmp_path / "sensitivity.json"
    error = {"vertex_mm": 0.5, "ssim": 0.9}
    path.write_text(json.dumps({"groups": {"a": {"convolutions": ["a"], "errors": {"0.25": error}}}, "quantize": {}}))
    assert read_errors(path) == {"a": {0.25: 0.5}}


@pytest.mark.parametrize("text", ["", "[]", "{}", '{"groups": {"a": {}}}', '{"groups": {"a": {"errors": {"x": {}}}}}'])
def test_another_file_is_refused(tmp_path: Path, text: str) -> None:
    path = tmp_path / "sensitivity.json"
    with pytest.raises(ArtifactError, match="is missing"):
        read_errors(path)
    path.write_text(text)
    with pytest.raises(ArtifactError, match="no sensitivity report"):
        read_errors(path)
