"""The INT8 network as its file defines it, naively in float64: what the kernels are compared with."""

from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from jaxtyping import Float, Int8

from leanface.runtime.int8.plan import Convolution, FeatureMap, Levels, MaxPool, Plan

TIE = 1e-4
"""Levels: float32's error of a value before it is rounded, which is 256 levels at most, and sums of several."""

Values = Float[np.ndarray, "images height width channels"]
Stored = Int8[np.ndarray, "images height width channels"]


@dataclass(frozen=True)
class Rounded:
    """Levels, and how far the exact value lay from where rounding would have gone the other way."""

    levels: Stored
    margin: Values


def rounded(values: Values, levels: Levels) -> Rounded:
    exact = values / levels.scale + levels.zero
    nearest = np.rint(exact).clip(-128, 127)
    inside = exact.clip(-128, 127)
    return Rounded(nearest.astype(np.int8), np.abs(np.abs(inside - np.floor(inside)) - 0.5))


def values_of(stored: Stored, map: FeatureMap) -> Values:
    return (stored.astype(np.float64) - map.levels.zero) * map.levels.scale


def convolution(step: Convolution, maps: dict[str, Stored]) -> Values:
    """What the step computes before it is quantized, of the levels that it reads."""
    source = torch.from_numpy(
        values_of(maps[step.source.name], step.source).transpose(0, 3, 1, 2) / step.source.levels.scale
    )
    weights = torch.from_numpy(step.weights.transpose(0, 3, 1, 2).astype(np.float64))
    sums = F.conv2d(source, weights, stride=step.stride, padding=step.padding).numpy().transpose(0, 2, 3, 1)
    values = sums * step.scale.astype(np.float64) + step.bias
    if step.residual is not None:
        values = values + values_of(maps[step.residual.name], step.residual)
    return np.maximum(values, 0.0) if step.relu else values


def max_pool(step: MaxPool, maps: dict[str, Stored]) -> Stored:
    source = torch.from_numpy(maps[step.source.name].astype(np.float64).transpose(0, 3, 1, 2))
    return F.max_pool2d(source, 3, 2, 1).numpy().transpose(0, 2, 3, 1).astype(np.int8)


def coefficients(plan: Plan, levels: Int8[np.ndarray, "images features"]) -> Float[np.ndarray, "images 257"]:
    """Of the levels of the mean features."""
    heads = plan.heads
    return (levels.astype(np.float64) - heads.levels.zero) @ heads.weights.T.astype(
        np.float64
    ) * heads.scale + heads.bias


def pixels_to_levels(pixels: np.ndarray, plan: Plan) -> Stored:
    """uint8 images (images, height, width, 3), or float32 (images, 3, height, width), in the file's float32."""
    values = pixels / np.float32(255) if pixels.dtype == np.uint8 else pixels.transpose(0, 2, 3, 1)
    levels = plan.image.levels
    return (np.rint(values.astype(np.float32) / np.float32(levels.scale)) + levels.zero).clip(-128, 127).astype(np.int8)


def whole_network(plan: Plan, pixels: np.ndarray) -> Float[np.ndarray, "images 257"]:
    """From the image to the coefficients."""
    maps = {plan.image.name: pixels_to_levels(pixels, plan)}
    features = np.zeros((len(pixels), 0), np.int8)
    for step in plan.steps:
        if isinstance(step, MaxPool):
            maps[step.target.name] = max_pool(step, maps)
        elif step.target is None:
            features = rounded(convolution(step, maps).mean((1, 2), keepdims=True), plan.heads.levels).levels[:, 0, 0]
        else:
            maps[step.target.name] = rounded(convolution(step, maps), step.target.levels).levels
    return coefficients(plan, features)


def check_layers(executor: Any, pixels: np.ndarray) -> Float[np.ndarray, "images 257"]:
    """Compare what an executor that shares no memory has left with what the file says, layer by layer.

    Each layer is judged by the levels that the kernels before it have written, so that no difference travels.

    Returns:
        the coefficients of the levels of the executor's mean features.
    """
    plan: Plan = executor.plan
    maps = {plan.image.name: pixels_to_levels(pixels, plan)}
    for step in plan.steps:
        if isinstance(step, MaxPool):
            assert np.array_equal(executor.levels(step.target.name).cpu().numpy(), max_pool(step, maps)), step.name
        else:
            values, levels = convolution(step, maps), step.target.levels if step.target else plan.heads.levels
            exact = rounded(values if step.target else values.mean((1, 2), keepdims=True), levels)
            got = executor.levels(step.target.name) if step.target else executor.features()[:, None, None]
            got = got.cpu().numpy()
            different = got != exact.levels
            assert np.abs(got.astype(int) - exact.levels).max() <= 1, step.name
            assert (exact.margin[different] < TIE).all(), step.name
            assert different.mean() < 1e-3, step.name
        if step.target is not None:
            maps[step.target.name] = executor.levels(step.target.name).cpu().numpy()
    return coefficients(plan, executor.features().cpu().numpy())
