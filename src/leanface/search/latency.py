"""Predict how long a network takes in the runtime and precision that it is deployed in, and how large its file is.

Random networks are really exported and timed, in turns with a reference. Time is fitted as a sum over layers of what
their shapes say: multiply-accumulates by kind of layer, bytes of feature maps and weights, weights beyond what caches
hold, and a constant each, none of them negative. Channels count as the hardware computes them, in blocks.
"""

import contextlib
import logging
import math
import tempfile
import time
from collections.abc import Callable, Mapping, Sequence
from functools import cached_property
from pathlib import Path
from typing import Any, cast

import numpy as np
import torch
from jaxtyping import Float
from pydantic import BaseModel, ConfigDict, ValidationError
from scipy.optimize import nnls  # pyright: ignore[reportUnknownVariableType]

from leanface import bundle
from leanface.catalog import RUNTIMES
from leanface.config import Search
from leanface.device import describe_device, has_vnni
from leanface.export.onnx import export_network, save_model
from leanface.files import atomic_write
from leanface.metrics.latency import measure_latency
from leanface.networks.quantized import Quantizer, add_quantizers, quantizers_of
from leanface.networks.widths import with_widths
from leanface.pruning.plan import Architecture
from leanface.runtime import Runtime, open_runtime
from leanface.runtime.benchmark import noise_images
from leanface.search.space import UNIFORM, LayerShape, Space

logger = logging.getLogger(__name__)

BLOCKS = (1, 8, 16, 32, 64)
"""Channels that the hardware may compute together, such as 16 in a 512-bit register of 32-bit sums, 32 in an INT8
tensor core's product, or 64 in an AMX tile's row; the one that predicts best is taken."""

CACHES = (2, 8)
"""Millions of weights beyond which each one costs more, since it has to be read again in every call."""

REFERENCE = -1
"""Stands for the network that all others are timed in turns with."""

REFERENCE_SCALE = 0.5
"""Share of the channels that it has."""

FOLDS = 5
OPSET = 19


class Row(BaseModel):
    """One network that was timed.

    Attributes:
        shapes: of its layers.
        ratio: its time over the reference's, the median of pairs.
        reference_ms: the reference's time meanwhile.
        size_bytes: of its file.
        seconds: that it took to export and time it.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    shapes: tuple[LayerShape, ...]
    ratio: float
    reference_ms: float
    size_bytes: int
    seconds: float


class Timings(BaseModel):
    """All that were timed on one machine.

    Attributes:
        machine: what they depend on: processor, runtime, precision, batch, and the original.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    machine: dict[str, Any]
    rows: tuple[Row, ...] = ()


class LatencyModel:
    """Predicts time and size of a network from the shapes of its layers.

    Attributes:
        reference_ms: time of the reference, the lower quartile of all: what else ran meanwhile only slows it.
        ratios: time of each network over the reference's; `predicted` likewise, by a fit to others.
        seconds: that it took to export and time them all.
    """

    def __init__(self, rows: Sequence[Row]) -> None:
        """Fit the model."""
        self.reference_ms = float(np.quantile([row.reference_ms for row in rows], 0.25))
        self.ratios = np.array([row.ratio for row in rows])
        self.seconds = sum(row.seconds for row in rows)
        self._bytes = _fit(
            np.array([_counts(row.shapes) for row in rows]), np.array([row.size_bytes for row in rows], np.float64)
        )
        predictions = {block: self._held_out(rows, block) for block in BLOCKS}
        self._block = min(BLOCKS, key=lambda block: np.abs(predictions[block] / self.ratios - 1).mean())
        self.predicted = predictions[self._block]
        self._weights = _fit(np.array([_features(row.shapes, self._block) for row in rows]), self.ratios)

    def _held_out(self, rows: Sequence[Row], block: int) -> Float[np.ndarray, " rows"]:
        """Predict each network's time by a fit to others, if channels are computed in such blocks."""
        features, folds = np.array([_features(row.shapes, block) for row in rows]), np.arange(len(rows)) % FOLDS
        weights = [_fit(features[folds != fold], self.ratios[folds != fold]) for fold in range(FOLDS)]
        return np.array([row @ weights[fold] for row, fold in zip(features, folds, strict=True)])

    @property
    def timed(self) -> tuple[tuple[float, float], ...]:
        """Predicted (held out) and measured time of each network (ms)."""
        pairs = zip(self.reference_ms * self.predicted, self.reference_ms * self.ratios, strict=True)
        return tuple((float(predicted), float(measured)) for predicted, measured in pairs)

    @property
    def error(self) -> float:
        """The mean size of the held-out error, as a share of the time."""
        return float(np.abs(self.predicted / self.ratios - 1).mean())

    def latency_ms(self, shapes: Sequence[LayerShape]) -> float:
        """Predict the time of one call."""
        return float(self.reference_ms * (_features(shapes, self._block) @ self._weights))

    def size_mb(self, shapes: Sequence[LayerShape]) -> float:
        """Predict the size of the file (10^6 bytes)."""
        return float(_counts(shapes) @ self._bytes) / 1e6


def _features(shapes: Sequence[LayerShape], block: int) -> Float[np.ndarray, " features"]:
    """Return multiply-accumulates, bytes and numbers of layers by kind, in units that make them similar."""
    found = np.zeros(13)
    for kernel, positions, inputs, outputs in shapes:
        wide_in, wide_out = (math.ceil(count / block) * block for count in (inputs, outputs))
        kind = 0 if inputs <= 3 else 1 if kernel > 1 else 2 if positions > 1 else 3
        found[kind] += kernel * positions * (inputs if kind == 0 else wide_in) * wide_out / 1e7
        found[4 + kind] += 1
        found[8] += positions * (wide_in + wide_out) / 1e6
        found[9] += kernel * wide_in * wide_out / 1e6
    whole = sum(kernel * inputs * outputs for kernel, _, inputs, outputs in shapes) / 1e6
    found[10:] = 1, *(max(0.0, whole - cache) for cache in CACHES)
    return found


def _fit(features: Float[np.ndarray, "rows features"], values: Float[np.ndarray, " rows"]) -> np.ndarray:
    """Fit values as a sum of features with weights that are not negative, by relative errors."""
    return cast(Any, nnls)(features / values[:, None], np.ones(len(values)))[0]


def _counts(shapes: Sequence[LayerShape]) -> Float[np.ndarray, "3"]:
    """Return numbers of weights, of outputs and of layers, which make up a file; and 1 for the rest."""
    weights = sum(shape.kernel * shape.inputs * shape.outputs for shape in shapes)
    return np.array([weights, sum(shape.outputs for shape in shapes), len(shapes), 1.0])


class Deployment:
    """Exports architectures of one network, and runs them as they are deployed."""

    def __init__(self, space: Space, task: str, settings: Search, residual: bool = True) -> None:
        """Take a space of architectures and the settings of the search.

        Args:
            task: name of the network's task.
            residual: whether an INT8 network quantizes its residual streams too.
        """
        entry = RUNTIMES[settings.runtime]
        self.space, self.settings, self.on_gpu = space, settings, entry.on_gpu
        self._task, self._reads, self._residual = task, entry.reads, residual

    def machine(self, original: str) -> dict[str, Any]:
        """Describe what times depend on; `original` is the digest of the network."""
        chosen = self.settings.model_dump(include={"runtime", "precision", "batch", "threads"})
        return {"device": describe_device(), "original": original, "image_size": self.space.image_size, **chosen}

    def export(self, architecture: Architecture, folder: Path) -> Path:
        """Export an architecture with random weights; in INT8 its ranges mean nothing either."""
        space, precision = self.space, self.settings.precision
        network = with_widths(space.network, space.widths(architecture), space.image_size)
        spec = bundle.new_spec(network, space.image_size, self._task)
        if precision == "int8":
            quantizer = Quantizer(residual=self._residual).model_dump()
            network = add_quantizers(network, quantizer).eval()
            for _, module in quantizers_of(network):
                module.amax = torch.ones_like(module.amax)  # pyright: ignore[reportArgumentType]
            spec = spec.model_copy(update={"quantizer": quantizer})
        if self._reads == "bundle":
            bundle.save_bundle(network, spec, folder / "network")
            return folder / "network"
        flavor = "cpu" if not self.on_gpu and has_vnni() else "tensorrt"
        model = export_network(network, spec, precision, OPSET, dynamic_size=spec.input.any_size, flavor=flavor)
        save_model(model, folder / "network.onnx", {})
        return folder / "network.onnx"

    @cached_property
    def _reference(self) -> Runtime:
        """What all networks are timed in turns with."""
        with tempfile.TemporaryDirectory() as scratch:
            return self._open(self.export(self.space.architecture(UNIFORM, REFERENCE_SCALE), Path(scratch)))

    def measure(self, architectures: Sequence[Architecture]) -> list[Row]:
        """Export architectures and time them, in turns with the reference; a batch on a GPU lies there already."""
        start, reference = time.monotonic(), self._reference
        images = noise_images(self.settings.batch, self.space.image_size, self.settings.runtime)
        with contextlib.ExitStack() as stack:
            scratch = Path(stack.enter_context(tempfile.TemporaryDirectory()))
            paths = [self.export(each, scratch / str(index)) for index, each in enumerate(architectures)]
            networks = {index: stack.enter_context(self._open(path)) for index, path in enumerate(paths)}
            timings = measure_latency(
                {index: each.resident(images) for index, each in {REFERENCE: reference, **networks}.items()},
                baselines=dict.fromkeys(networks, REFERENCE),
                warmup=3,
                window=3,
                windows_max=48,
                interval=0.02,
                window_seconds=0.01,
            )
            sizes = [_size_bytes(path) for path in paths]
        rows: list[Row] = []
        for index, architecture in enumerate(architectures):
            speedup = timings[index].speedup
            assert speedup is not None
            rows.append(
                Row(
                    shapes=tuple(self.space.shapes(architecture)),
                    ratio=1 / speedup.value,
                    reference_ms=timings[REFERENCE].latency_ms,
                    size_bytes=sizes[index],
                    seconds=(time.monotonic() - start) / len(architectures),
                )
            )
        return rows

    def _open(self, path: Path) -> Runtime:
        return open_runtime(self.settings.runtime, path, self.settings.threads)


def latency_model(
    deployment: Deployment, original: str, file: Path, report: Callable[[int, int], None]
) -> LatencyModel:
    """Return the model of this machine, of networks that are timed now unless they lie in `file`.

    Timings of another machine are put aside. What was timed before an interruption is kept.

    Args:
        original: digest of the network.
        file: where timings are kept.
        report: called with how many networks are timed, and of how many.
    """
    timings, space = _read(file, deployment.machine(original)), deployment.space
    count = deployment.settings.networks
    for index in range(len(timings.rows), count):
        (row,) = deployment.measure([space.random(np.random.default_rng([0, index]))])
        timings = timings.model_copy(update={"rows": (*timings.rows, row)})
        atomic_write(file, timings.model_dump_json() + "\n")
        report(index + 1, count)
    return LatencyModel(timings.rows[:count])


def _read(file: Path, machine: Mapping[str, Any]) -> Timings:
    """Return the timings of this machine in `file`, or none."""
    try:
        found = Timings.model_validate_json(file.read_bytes())
    except FileNotFoundError:
        return Timings(machine=dict(machine))
    except ValidationError:
        logger.warning("%s is damaged: the networks are timed again", file)
        return Timings(machine=dict(machine))
    if found.machine != machine:
        differing = [name for name in machine if found.machine.get(name) != machine[name]]
        logger.warning("%s is of another %s: the networks are timed again", file, " and ".join(differing))
        return Timings(machine=dict(machine))
    return found


def _size_bytes(path: Path) -> int:
    return sum(file.stat().st_size for file in (path.rglob("*") if path.is_dir() else [path]) if file.is_file())
