"""What each layer of a network costs: parameters, multiply-accumulates, activation memory, time."""

import time
from collections import defaultdict
from functools import partial
from typing import Any, NamedTuple

import numpy as np
import torch
from torch import Tensor, nn

from leanface.networks.graph import layers_of


class LayerCost(NamedTuple):
    """Cost of one convolution or linear layer for one image; batch norms are left out, since they fold into it."""

    parameters: int
    macs: int
    activation_bytes: int
    """Size of its output in FP32."""


def layer_costs(network: nn.Module, size: int) -> dict[str, LayerCost]:
    """Count the cost of every layer for one image of `size` pixels, by module name in the order of execution."""
    costs: dict[str, LayerCost] = {}

    def record(name: str, layer: nn.Conv2d | nn.Linear, _: object, output: Tensor) -> None:
        costs[name] = LayerCost(
            parameters=sum(parameter.numel() for parameter in layer.parameters()),
            macs=output[0].numel() * layer.weight[0].numel(),
            activation_bytes=output[0].numel() * 4,
        )

    handles = [layer.register_forward_hook(partial(record, name)) for name, layer in layers_of(network).items()]
    try:
        _run(network, size)
    finally:
        for handle in handles:
            handle.remove()
    return costs


def macs_and_parameters(network: nn.Module, size: int) -> tuple[int, int]:
    """Count all convolutions' multiply-accumulates for one image of `size` pixels, and all parameters."""
    macs = sum(cost.macs for cost in layer_costs(network, size).values())
    return macs, sum(parameter.numel() for parameter in network.parameters())


def layer_latencies_ms(network: nn.Module, size: int, *, warmup: int, runs: int) -> tuple[dict[str, float], float]:
    """Measure every convolution's median time on the CPU in FP32 at batch 1, and the whole network's.

    By module name in the order of execution; all from the same runs.
    """
    times: dict[str, list[float]] = defaultdict(list)
    started: dict[str, float] = {}

    def start(name: str, *_: object) -> None:
        started[name] = time.perf_counter()

    def stop(name: str, *_: object) -> None:
        times[name].append(1e3 * (time.perf_counter() - started[name]))

    handles: list[Any] = []
    for name, layer in layers_of(network).items():
        handles.append(layer.register_forward_pre_hook(partial(start, name)))
        handles.append(layer.register_forward_hook(partial(stop, name)))
    whole: list[float] = []
    try:
        for _ in range(warmup + runs):
            begin = time.perf_counter()
            _run(network, size)
            whole.append(1e3 * (time.perf_counter() - begin))
    finally:
        for handle in handles:
            handle.remove()
    layers = {name: float(np.median(each[warmup:])) for name, each in times.items()}
    return layers, float(np.median(whole[warmup:]))


@torch.inference_mode()
def _run(network: nn.Module, size: int) -> None:
    """Run one blank image through the network."""
    assert not network.training, "batch norms would learn from a blank image"
    network(torch.zeros(1, 3, size, size, device=next(network.parameters()).device))
