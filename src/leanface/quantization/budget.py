"""Mixed precision: which parts of an INT8 network stay in floating point, so that it keeps within a budget.

A part is a layer, or the identity branch of a residual addition. What each part adds to the error is found by
quantizing it alone; what it costs in time to keep it is measured in the deployed runtime. Parts are kept in the order
of what they gain by what they cost, and every network on the way is measured as it is deployed.
"""

from collections.abc import Callable, Collection, Generator, Iterator, Mapping, Sequence
from contextlib import contextmanager
from functools import partial
from statistics import fmean
from typing import NamedTuple

import torch
from jaxtyping import Float
from torch import Tensor, nn

from leanface.config import Budget
from leanface.errors import ConfigError
from leanface.metrics.outputs import mean_errors
from leanface.metrics.sensitivity import Change, deviations
from leanface.networks.graph import trace
from leanface.networks.interface import Flavor
from leanface.networks.quantized import Quantizer, add_quantizers, in_flavor, quantizers_of
from leanface.task import Task

State = Mapping[str, Tensor]

MOST = 12
"""Parts whose cost is measured: the others gain less."""

NOISE = 0.002
"""Share of the latency below which a cost cannot be told from none."""


class Point(NamedTuple):
    """An INT8 network, as it was measured in its runtime.

    Attributes:
        kept: the parts in floating point.
        errors: means against the network that was quantized, by measure.
        latency_ms: of one image.
    """

    kept: tuple[str, ...]
    errors: dict[str, float]
    latency_ms: float


def keep_floating(network: nn.Module, quantized: State, before: State, quantizer: Quantizer) -> nn.Module:
    """Quantize a floating-point network, in place, but for the parts that the quantizer excludes.

    Args:
        quantized: the state of the same network, quantized wholly.
        before: that state before its weights were rounded.
    """
    norms = trace(network).norms
    modules = [module for name in quantizer.excluded_layers for module in (name, norms.get(name)) if module]
    kept = tuple(f"{module}." for module in modules)
    network = add_quantizers(network, quantizer.model_dump())
    network.load_state_dict({key: (before if key.startswith(kept) else quantized)[key] for key in network.state_dict()})
    return network.eval()


def errors_alone(
    quantized: nn.Module,
    before: State,
    flavor: Flavor,
    images: Float[Tensor, "batch 3 height width"],
    task: Task,
) -> dict[str, dict[str, float]]:
    """Measure the mean errors with one part quantized and all others in floating point, by the part's name.

    Args:
        quantized: wholly, in eval mode.
        before: its state before its weights were rounded.
        flavor: of the file that is deployed.
    """
    network = in_flavor(quantized, flavor)
    parts = list(dict.fromkeys(name.rpartition(".")[0] for name, _ in quantizers_of(quantized)))
    norms = trace(network).norms
    rounded, own = quantized.state_dict(), network.state_dict()
    keys = {part: [key for key in own if key.startswith((f"{part}.", f"{norms.get(part, part)}."))] for part in parts}

    def switch(part: str, state: State, *, on: bool) -> None:
        for quantizer in quantizers[part]:
            quantizer.enable() if on else quantizer.disable()
        for key in keys[part]:
            if not key.endswith("_amax"):
                own[key].copy_(state[key])

    @contextmanager
    def alone(part: str) -> Generator[None]:
        switch(part, rounded, on=True)
        try:
            yield
        finally:
            switch(part, before, on=False)

    found = list(quantizers_of(network))
    quantizers = {part: [each for name, each in found if name.rpartition(".")[0] == part] for part in parts}
    with torch.no_grad():
        for part in parts:
            switch(part, before, on=False)
    changes = {part: Change(part, partial(alone, part)) for part in parts}
    return deviations(network, images, changes, lambda outputs: lambda other: mean_errors(task, other, outputs))


def require_measured(budget: Budget, measures: Collection[str]) -> None:
    """Refuse a budget that limits what is not measured.

    Raises:
        ConfigError: it does; the message has what is.
    """
    if unknown := sorted(set(budget.error) - set(measures)):
        raise ConfigError(f"quantize.budget.error: no measure {', '.join(unknown)}; there are {', '.join(measures)}.")


def gains_of(alone: Mapping[str, Mapping[str, float]], whole: Mapping[str, float], budget: Budget) -> dict[str, float]:
    """Say which share of the squared error each part has, as the mean over what the budget limits, or all measures.

    Args:
        alone: what `errors_alone` returns.
        whole: the errors of the network that is quantized wholly.
    """
    measures = [name for name in budget.error or whole if whole[name] > 0]
    return {
        part: fmean((errors[name] / whole[name]) ** 2 for name in measures) if measures else 0.0
        for part, errors in alone.items()
    }


def ranked(gains: Mapping[str, float], costs_ms: Mapping[str, float], latency_ms: float) -> list[str]:
    """Order parts by what they gain for what they cost, the best first.

    Args:
        costs_ms: of keeping each part in floating point; what is not in here is left out.
        latency_ms: of the network without any.
    """
    return sorted(costs_ms, key=lambda part: -gains[part] / max(costs_ms[part], NOISE * latency_ms))


def search(gains: Mapping[str, float], measure: Callable[[tuple[str, ...]], Point]) -> Iterator[Point]:
    """Yield the network without any part kept, with each of the `MOST` that gain most, and with more and more of them.

    Args:
        measure: makes and measures the network with these parts in floating point.
    """
    yield (whole := measure(()))
    costs_ms: dict[str, float] = {}
    for part in sorted(gains, key=lambda part: -gains[part])[:MOST]:
        yield (point := measure((part,)))
        costs_ms[part] = point.latency_ms - whole.latency_ms
    order = ranked(gains, costs_ms, whole.latency_ms)
    for count in range(2, len(order) + 1):
        yield measure(tuple(order[:count]))


def choose(points: Sequence[Point], budget: Budget) -> Point:
    """Return the fastest network within the budget; without limits to errors, the closest one.

    Raises:
        ConfigError: none is within; the message has the best that can be reached.
    """
    base = points[0].errors
    measures = [name for name in budget.error or base if base[name] > 0]

    def excess(point: Point) -> float:
        """The worst error as a share of its limit; without limits the mean share of the first network's errors."""
        if budget.error:
            return max(point.errors[name] / limit for name, limit in budget.error.items())
        return fmean(point.errors[name] / base[name] for name in measures) if measures else 0.0

    fast = [point for point in points if budget.latency is None or point.latency_ms <= budget.latency]
    close = [point for point in points if not budget.error or excess(point) <= 1]
    both = [point for point in fast if point in close]
    if both:
        return min(both, key=lambda point: point.latency_ms if budget.error else excess(point))
    reached = [f"the fastest takes {_words(min(points, key=lambda point: point.latency_ms), budget)}"]
    if fast and budget.error:
        reached.append(f"the closest within the latency takes {_words(min(fast, key=excess), budget)}")
    if budget.error:
        fastest = min(close, key=lambda point: point.latency_ms) if close else min(points, key=excess)
        which = "the fastest within the errors" if close else "the closest of all"
        reached.append(f"{which} takes {_words(fastest, budget)}")
    raise ConfigError(
        f"quantize.budget cannot be met by any of {len(points)} networks that were measured: {'; '.join(reached)}. "
        "Allow more, prune less, or distill longer."
    )


def _words(point: Point, budget: Budget) -> str:
    errors = ", ".join(f"{name} {point.errors[name]:.3g}" for name in budget.error or point.errors)
    return f"{point.latency_ms:.3g} ms with {errors}"


def front_of(points: Sequence[Point], measure: str) -> list[Point]:
    """Return the points that no other one beats in both latency and a measure, the fastest first."""
    front: list[Point] = []
    for point in sorted(points, key=lambda point: (point.latency_ms, point.errors[measure])):
        if not front or point.errors[measure] < front[-1].errors[measure]:
            front.append(point)
    return front
