"""What a search found, typed, as it lies in reports/search/search.json; and what it measured before it was stopped."""

import time
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from pydantic import BaseModel, ConfigDict

from leanface.errors import ArtifactError
from leanface.files import Json, read_json, write_json
from leanface.pruning.plan import Architecture

Errors = dict[str, float]
"""Errors on the val split, by REFERENCE_NAME as in "teacher_vertex_mm"."""


class _Record(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid")


class Point(_Record):
    """One point of the front, and the uniform network that takes as long.

    Attributes:
        latency_ms: as predicted; size_mb likewise.
        error: of the searched pattern after a re-fit on few faces, to the original.
        uniform_error: None: the uniform network cannot be that fast.
    """

    latency_ms: float
    size_mb: float
    error: float
    uniform_error: float | None


class Candidate(_Record):
    """One network that was re-fitted whole.

    Attributes:
        name: "uniform", or how it ranked among those that were searched.
        latency_ms: as measured; predicted_ms: before.
        errors: after the re-fit.
    """

    name: str
    architecture: Architecture
    latency_ms: float
    predicted_ms: float
    size_mb: float
    errors: Errors


class SearchRecord(_Record):
    """Everything that stage search tells.

    Attributes:
        targets: as they were given.
        error: the measure that was searched by, to the original.
        cases: how many architectures were re-fitted and measured.
        model_error: mean held-out error of the latency model, as a share.
        timed: predicted and measured time (ms) of its networks.
        chosen: the name of a candidate.
        uniform: as fast as that one, or the narrowest.
        deployed: errors of the chosen network in its precision.
        costs: of the chosen one, as measured.
        answer: why the targets cannot be met, and what is near; None: they can.
        seconds: by step, those included in which an earlier run measured what this one took over.
    """

    targets: dict[str, float | str]
    runtime: str
    precision: str
    error: str
    cases: int
    model_error: float
    timed: tuple[tuple[float, float], ...]
    front: tuple[Point, ...]
    candidates: tuple[Candidate, ...]
    chosen: str
    uniform: Architecture
    deployed: Errors
    costs: dict[str, float]
    answer: str | None
    seconds: dict[str, float]

    @property
    def choice(self) -> Candidate:
        """The chosen network."""
        return next(candidate for candidate in self.candidates if candidate.name == self.chosen)


def metrics_of(record: SearchRecord) -> dict[str, float]:
    """Return the numbers of a search: of each candidate, of the chosen network, and of the latency model."""
    tried = {f"{one.name.replace(' ', '_')}/{name}": v for one in record.candidates for name, v in one.errors.items()}
    deployed = {f"chosen/{name}": value for name, value in (record.deployed | record.costs).items()}
    seconds = sum(record.seconds.values())
    return tried | deployed | {"latency_model_error": record.model_error, "cases": record.cases, "seconds": seconds}


class Journal:
    """What was measured so far, so that a search that was stopped goes on; of other conditions it knows nothing.

    Attributes:
        replayed: seconds that an earlier run spent on the results that were taken over.
    """

    def __init__(self, file: Path, conditions: Mapping[str, Any]) -> None:
        """Take the file, which need not be there yet.

        Args:
            conditions: all that the results depend on, as JSON.
        """
        self._file, self._conditions, self.replayed = file, dict(conditions), 0.0
        self._known: Json = {}
        self._seconds: dict[str, float] = {}
        self._earlier: dict[str, float] = {}
        try:
            kept = read_json(file)
        except ArtifactError:  # there is none, or it is damaged
            return
        if kept.get("conditions") == self._conditions:
            self._known, self._seconds = kept["known"], kept.get("seconds", {})
            self._earlier = dict(self._seconds)

    def get(self, name: str, measure: Callable[[], Any]) -> Any:
        """Return the result of this name, JSON, which is measured if it is not known."""
        self.replayed += self._earlier.pop(name, 0.0)
        if name not in self._known:
            start = time.monotonic()
            self._known[name] = measure()
            self._seconds[name] = time.monotonic() - start
            kept = {"conditions": self._conditions, "known": self._known, "seconds": self._seconds}
            write_json(self._file, kept)
        return self._known[name]
