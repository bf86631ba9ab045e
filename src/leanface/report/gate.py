"""Whether a finished pipeline's gates passed, for scripts and CI."""

from pathlib import Path

from leanface.errors import GateError
from leanface.files import Json, read_json


def require_gates(summary: Path) -> list[str]:
    """A line for each gate of a summary.json.

    Raises:
        ArtifactError: the summary is missing or damaged.
        GateError: a gate failed; names each that did, with its value and its limit.
    """
    return gate_lines(read_json(summary)["gates"])


def gate_lines(gates: dict[str, Json]) -> list[str]:
    """A line for each gate, by name.

    Raises:
        GateError: a gate failed.
    """
    lines = {name: _line(name, gate) for name, gate in gates.items()}
    failed = [lines[name] for name, gate in gates.items() if not gate["passed"]]
    if failed:
        raise GateError(
            f"{len(failed)} of {len(gates)} gates failed:\n  " + "\n  ".join(failed) + "\nTrain longer "
            "(distill.optimizer.steps), prune less (prune.ratio), or see reports/report.html for where it errs."
        )
    return list(lines.values())


def _line(name: str, gate: Json) -> str:
    value = "undefined" if gate["value"] is None else f"{gate['value']:.5g}"
    verdict = "passed" if gate["passed"] else "failed"
    return f"{name}: {value} ({'at least' if gate['bound'] == 'min' else 'at most'} {gate['limit']:g}), {verdict}"
