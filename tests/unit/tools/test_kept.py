"""What a study keeps."""

from pathlib import Path

import pytest

from leanface.errors import Unfinished
from tools.studies.kept import Kept


def test_a_result_is_measured_again_only_if_its_conditions_changed(tmp_path: Path) -> None:
    measured = list[int]()

    def measure() -> dict[str, float]:
        measured.append(1)
        return {"error": float(len(measured))}

    kept = Kept(tmp_path, None)
    assert [kept.get("a", 1, measure)["error"] for _ in range(2)] == [1.0, 1.0]
    assert kept.get("a", 2, measure)["error"] == 2.0
    over = Kept(tmp_path, 0.0)
    assert over.get("a", 2, measure)["error"] == 2.0
    with pytest.raises(Unfinished, match="before b"):
        over.get("b", 1, measure)
    assert [file.name for file in tmp_path.iterdir()] == ["a.json"]
