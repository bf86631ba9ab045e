"""Stage report: one summary, one page, and whether the gates are passed."""

from leanface.config import Evaluate
from leanface.report.page import write_report
from leanface.report.sources import read_sources


def run(*, evaluate: Evaluate) -> dict[str, float]:
    summary = write_report(read_sources(), evaluate.gates)
    return {f"gate_{name}": float(gate.passed) for name, gate in summary.gates.items()}
