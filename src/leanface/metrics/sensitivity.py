"""How far small changes of a network, made one at a time, move its outputs.

Up to the block in which a change is made the network computes what it always does, so each change only reruns the rest.
"""

from collections.abc import Callable, Mapping, Sequence
from contextlib import AbstractContextManager
from typing import NamedTuple, TypeVar

import torch
from jaxtyping import Float
from torch import Tensor, nn

from leanface.networks.resnet import STAGE_DEPTHS, FaceReconstructionNet
from leanface.task import Deviation, Task


class Change(NamedTuple):
    """Something done to a network for one measurement.

    Attributes:
        first: the convolution whose answer changes; of several, the first in order of execution.
        made: opens a context in which the network is changed, and after which it is as before.
    """

    first: str
    made: Callable[[], AbstractContextManager[None]]


Key = TypeVar("Key")


@torch.no_grad()
def deviations(
    network: FaceReconstructionNet,
    images: Float[Tensor, "batch 3 height width"],
    task: Task,
    changes: Mapping[Key, Change],
) -> dict[Key, Deviation]:
    """Measure what each change alone does to the outputs of a network in eval mode, in the order of `changes`."""
    names, steps = zip(*_steps(network).items(), strict=True)
    starts = {key: _step_of(change.first, names) for key, change in changes.items()}
    deviation = task.deviation_from(network(images), images.shape[-1])
    found: dict[Key, Deviation] = {}
    x = images
    for place, step in enumerate(steps):
        for key in (key for key, start in starts.items() if start == place):
            with changes[key].made():
                found[key] = deviation(_run(steps[place:], x))
        x = step(x)
    return {key: found[key] for key in changes}


Step = Callable[[Tensor], Tensor]


def _steps(network: FaceReconstructionNet) -> dict[str, Step]:
    """The network cut where nothing but one feature map passes, by what its convolutions' names begin with."""
    backbone = network.backbone
    blocks = [f"backbone.layer{stage}.{place}" for stage, depth in enumerate(STAGE_DEPTHS, 1) for place in range(depth)]
    return {
        "backbone.conv1": nn.Sequential(backbone.conv1, backbone.bn1, backbone.relu, backbone.maxpool),
        **{name: network.get_submodule(name) for name in blocks},
        "final_layers": lambda x: network.predict(backbone.avgpool(x)),
    }


def _step_of(conv: str, steps: Sequence[str]) -> int:
    return next(place for place, step in enumerate(steps) if f"{conv}.".startswith(f"{step}."))


def _run(steps: Sequence[Step], x: Tensor) -> Tensor:
    for step in steps:
        x = step(x)
    return x
