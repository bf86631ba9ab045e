"""How far small changes of a network, made one at a time, move its outputs.

Up to the layer in which a change is made the network computes what it always does, so each change only reruns the rest.
"""

from collections.abc import Callable, Mapping
from contextlib import AbstractContextManager
from typing import Any, NamedTuple, TypeVar

import torch
from jaxtyping import Float
from torch import Tensor, fx, nn

from leanface.networks.graph import trace
from leanface.task import Deviation


class Change(NamedTuple):
    """Something done to a network for one measurement.

    Attributes:
        first: the module whose answer changes; of several, the first in order of execution.
        made: opens a context in which the network is changed, and after which it is as before.
    """

    first: str
    made: Callable[[], AbstractContextManager[None]]


Key = TypeVar("Key")


@torch.no_grad()
def deviations(
    network: nn.Module,
    images: Float[Tensor, "batch 3 height width"],
    changes: Mapping[Key, Change],
    deviation_from: Callable[[Tensor], Callable[[Tensor], Deviation]],
) -> dict[Key, Deviation]:
    """Measure what each change alone does to the outputs of a network in eval mode, in the order of `changes`.

    Args:
        deviation_from: returns what measures outputs against the ones that it is given.
    """
    graph = trace(network)
    deviation = deviation_from(network(images))
    found: dict[Key, Deviation] = {}
    values: dict[fx.Node, Any] = {graph.nodes[0]: images}
    for node in graph.nodes[1:]:
        for key in (key for key, change in changes.items() if change.first == str(node.target)):
            with changes[key].made():
                found[key] = deviation(graph.run_from(node, values))
        values[node] = graph.compute(node, values)
        for dead in graph.dead_after[node]:
            del values[dead]
    return {key: found[key] for key in changes}
