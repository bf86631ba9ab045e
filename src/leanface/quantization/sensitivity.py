"""What INT8 costs the outputs layer by layer: one layer quantized, all others in floating point."""

import copy
from collections import defaultdict
from collections.abc import Generator, Sequence
from contextlib import contextmanager
from functools import partial
from typing import Any

from jaxtyping import Float
from torch import Tensor, nn

from leanface.metrics.sensitivity import Change, deviations
from leanface.networks.quantized import Quantizer, quantizers_of
from leanface.quantization.fake_quantize import fake_quantize
from leanface.task import Deviation, Task


def quantization_sensitivity(
    network: nn.Module, images: Float[Tensor, "batch 3 height width"], task: Task
) -> dict[str, Deviation]:
    """The deviation with one layer's weights and inputs in INT8, by its name, without training.

    Args:
        network: left as it is.
        images: faces, for calibrating the ranges and for reading; no labels are needed.
        task: what the network's outputs mean.
    """
    quantized = fake_quantize(copy.deepcopy(network), images, Quantizer(residual=False))
    layers: defaultdict[str, list[Any]] = defaultdict(list)
    for name, quantizer in list(quantizers_of(quantized)):
        layers[name.rpartition(".")[0]].append(quantizer)
        quantizer.disable()
    changes = {name: Change(name, partial(_enabled, quantizers)) for name, quantizers in layers.items()}
    return deviations(quantized, images, changes, partial(task.deviation_from, image_size=images.shape[-1]))


@contextmanager
def _enabled(quantizers: Sequence[Any]) -> Generator[None]:
    for quantizer in quantizers:
        quantizer.enable()
    try:
        yield
    finally:
        for quantizer in quantizers:
            quantizer.disable()
