"""What a user asks of a network: limits of what it costs and of how wrong it is, with their units."""

import re
from collections.abc import Collection, Mapping
from dataclasses import replace
from typing import NamedTuple

from leanface.catalog import MEASURES, TIMES
from leanface.errors import ConfigError, did_you_mean

COSTS = ("latency_ms", "images_per_second", "size_mb", "memory_mb", "energy_mj")

_VALUE = re.compile(r"(?P<value>[+-]?(\d+\.?\d*|\.\d+)(e[+-]?\d+)?)\s*(?P<unit>[a-z%/ ]*)", re.IGNORECASE)


class Target(NamedTuple):
    """One limit.

    Attributes:
        measure: one of `COSTS`, or an error of the task.
        limit: the worst value that is allowed.
        relative: whether an error's limit is counted from the original's error.
    """

    measure: str
    limit: float
    relative: bool

    @property
    def title(self) -> str:
        """The measure, as reports call it."""
        found = _measure(self.measure)
        return self.measure if found is None else replace(found, unit="").full_heading

    def text(self, value: float) -> str:
        """Round a value for a reader, with its unit."""
        unit = unit_of(self.measure)
        return f"{value:.3g}{'' if unit in ('', TIMES) else ' '}{unit}"

    def allowed(self, original: float) -> float:
        """Return the limit as a value of the measure, given the original's."""
        return self.limit + (original if self.relative else 0.0)

    def is_met(self, value: float, original: float = 0.0) -> bool:
        """Tell whether a value is within the limit."""
        limit = self.allowed(original)
        return value >= limit if self.measure == "images_per_second" else value <= limit


def parse_targets(given: Mapping[str, float | str], errors: Collection[str]) -> list[Target]:
    """Read `search.targets`.

    Args:
        errors: names of the task's errors.

    Raises:
        ConfigError: a measure or a unit is not known, a number is none, or a limit can never be met.
    """
    return [_parse(measure, value, errors) for measure, value in given.items()]


def _parse(measure: str, given: float | str, errors: Collection[str]) -> Target:
    known = [*COSTS, *errors]
    if measure not in known:
        raise ConfigError(
            f"search.targets: there is no measure {measure}.{did_you_mean(measure, known)} Valid: {', '.join(known)}."
        )
    text = str(given).strip()
    found, unit = _VALUE.fullmatch(text), unit_of(measure)
    if found is None:
        raise ConfigError(f"search.targets.{measure}: expected a number{f' of {unit}' if unit else ''}, got {given!r}.")
    if found["unit"].strip() not in ("", unit):
        raise ConfigError(
            f"search.targets.{measure} is in {unit or 'no unit'}, got {given!r}: write it without a unit."
        )
    value, signed = float(found["value"]), text[0] in "+-"
    if measure in COSTS and (signed or value <= 0):
        raise ConfigError(f"search.targets.{measure} must be above 0, and not relative, got {given!r}.")
    if measure in errors and value < 0:
        raise ConfigError(
            f"search.targets.{measure}: a compressed network is not better than the original, got {given!r}."
        )
    return Target(measure, value, signed)


def unit_of(measure: str) -> str:
    """Return the unit of a cost or of a task's error; "" if it has none, or is not in the catalog."""
    if measure == "energy_mj":
        return "mJ"
    found = _measure(measure)
    return "" if found is None or found.scale != 1 else found.unit


def _measure(name: str):
    return MEASURES.get(name) or MEASURES.get(f"truth_{name}") or MEASURES.get(f"teacher_{name}")
