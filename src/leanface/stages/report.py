"""Stage report: one summary, one page, and whether the gates are passed."""

from leanface.config import Evaluate, TaskChoice
from leanface.report.page import write_report
from leanface.report.sources import read_sources
from leanface.task import subject_of


def run(*, task: TaskChoice, evaluate: Evaluate) -> dict[str, float]:
    summary = write_report(read_sources(), task.name, subject_of(task), evaluate.gates)
    return {f"gate_{name}": float(gate.passed) for name, gate in summary.gates.items()}
