"""Say whether a finished pipeline's gates passed, for scripts and CI, and how it ended, for people."""

from collections.abc import Mapping
from pathlib import Path

from leanface import paths
from leanface.catalog import DEPLOYED, MEASURES, variant_title
from leanface.errors import GateError
from leanface.files import read_json
from leanface.report.summary import GateResult, Summary


def require_gates(summary: Path) -> list[str]:
    """Write a line for each gate of a summary.json.

    Raises:
        ArtifactError: the summary is missing or damaged.
        GateError: a gate failed; names each that did, with its value and its limit.
    """
    return gate_lines(Summary.parse(read_json(summary), str(summary)).gates)


def verdict_lines(summary: Path) -> list[str]:
    """Write how a pipeline ended: whether its gates passed, the headline, and where the report is.

    Raises:
        ArtifactError: the summary is missing or damaged.
    """
    found = Summary.parse(read_json(summary), str(summary))
    failed = [_line(name, gate) for name, gate in found.gates.items() if not gate.passed]
    verdict = (
        f"{len(failed)} of {len(found.gates)} gates failed:" if failed else f"All {len(found.gates)} gates passed."
    )
    network = found.deployed
    quality = found.subject.verdict.format_map({name: network.text(name) for name in network.measures})
    interval = network.interval_text("speedup")
    headline = f"{variant_title(DEPLOYED)}: {network.text('speedup')} as fast as the original in PyTorch"
    headline += f" ({interval})" if interval else ""
    headline += f", {network.text('size_ratio')} smaller, {quality}."
    warning = [] if found.warning is None else [found.warning]
    return [verdict, *(f"  {line}" for line in failed), headline, *warning, f"Report: {paths.REPORT_HTML}"]


def gate_lines(gates: Mapping[str, GateResult]) -> list[str]:
    """Write a line for each gate, by name.

    Raises:
        GateError: a gate failed.
    """
    lines = {name: _line(name, gate) for name, gate in gates.items()}
    failed = [lines[name] for name, gate in gates.items() if not gate.passed]
    if failed:
        raise GateError(
            f"{len(failed)} of {len(gates)} gates failed:\n  " + "\n  ".join(failed) + "\nTrain longer "
            "(distill.optimizer.steps), prune less (prune.ratio), or see reports/report.html for where it errs."
        )
    return list(lines.values())


def _line(name: str, gate: GateResult) -> str:
    value = "undefined" if gate.value is None else f"{gate.value:.5g}"
    limit = f"{'at least' if gate.bound == 'min' else 'at most'} {gate.limit:g}"
    if gate.interval is not None:
        limit = f"95 % interval {gate.interval[0]:.5g} to {gate.interval[1]:.5g}, all of it {limit}"
    elif gate.value is not None and not MEASURES[name].exact:
        limit += ", but measured too briefly for an interval"
    return f"{name}: {value} ({limit}), {'passed' if gate.passed else 'failed'}"
