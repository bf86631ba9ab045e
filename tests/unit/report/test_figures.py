"""Pictures of a report whose networks make no error at all."""

from pathlib import Path

from leanface.report.figures import save_pareto
from leanface.report.summary import VariantSummary


def test_networks_without_an_error_have_a_picture(tmp_path: Path) -> None:
    numbers = {"truth_error": 0.0, "latency_ms": 0.1, "size_mb": 0.2}
    variant = VariantSummary.model_validate({"runtime": "openvino", "intervals": {}, **numbers})
    save_pareto({"quantized_int8": variant}, "truth_error", tmp_path / "pareto.png")
    assert (tmp_path / "pareto.png").is_file()
