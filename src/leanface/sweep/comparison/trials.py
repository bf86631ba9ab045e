"""A trial as a row of numbers; dominance and recommendation."""

import collections
import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from leanface import paths
from leanface.files import Json

COSTS = {"latency_ms_p50": "Latency (ms, p50)", "size_mb": "ONNX file (MB)", "macs": "MACs (million)"}
"""What a smaller error is paid with."""

RULE = "the fastest trial that passes all gates"


@dataclass(frozen=True)
class Row:
    """One trial; `measures` are the deployed network's in summary.json, None where unknown.

    Attributes:
        name: of its DVC experiment.
        params: the parameters in which the trials differ, by dotted name.
        gates: whether each gate was passed.
        device: the record of the machine that measured it.
        reason: why it failed; a failed trial has no measures.
    """

    name: str
    params: dict[str, Any]
    measures: dict[str, Any]
    gates: dict[str, bool]
    device: Json
    reason: str | None = None

    @property
    def passed(self) -> bool:
        return bool(self.gates) and all(self.gates.values())


def row_of(name: str, params: Mapping[str, Any], summary: Json) -> Row:
    """From the contents of a summary.json."""
    measures = dict(summary["variants"][paths.DEPLOYED])
    if measures.get("macs") is not None:
        measures["macs"] /= 1e6
    gates = {gate: verdict["passed"] for gate, verdict in summary["gates"].items()}
    return Row(name, dict(params), measures, gates, summary["device"])


def error_measure(rows: Sequence[Row]) -> str:
    """The error that all have: against ground truth; of unlabelled photos against the original."""
    labelled = all(row.measures.get("vertex_error_mm") is not None for row in rows if row.reason is None)
    return "vertex_error_mm" if labelled else "vertex_to_original_mm"


def front(rows: Sequence[Row], error: str, cost: str) -> set[str]:
    """Names of the trials than which no other one is as good in both and better in one.

    Trials that lack either value are not among them.
    """
    known = [row for row in rows if row.measures.get(error) is not None and row.measures.get(cost) is not None]
    known.sort(key=lambda row: (row.measures[cost], row.measures[error]))
    best, chosen = float("inf"), set[str]()
    last: tuple[float, float] | None = None
    for row in known:
        point = (row.measures[cost], row.measures[error])
        if point[1] < best or point == last:
            chosen.add(row.name)
            best, last = point[1], point
    return chosen


def on_one_machine(rows: Sequence[Row]) -> tuple[list[Row], list[Row]]:
    """The trials of the machine that measured most of them, and the others, whose times are not comparable."""
    machines = collections.Counter(json.dumps(row.device, sort_keys=True) for row in rows if row.reason is None)
    most = machines.most_common(1)[0][0] if machines else ""
    chosen = [row for row in rows if row.reason is None and json.dumps(row.device, sort_keys=True) == most]
    return chosen, [row for row in rows if row.reason is None and row not in chosen]


def recommended(rows: Sequence[Row]) -> Row | None:
    """By `RULE`, among trials of one machine; at equal speed the one with the smaller error."""
    comparable, _ = on_one_machine(rows)
    passing = [row for row in comparable if row.passed]
    error = error_measure(rows)
    return min(passing, key=lambda row: (row.measures["latency_ms_p50"], row.measures[error]), default=None)
