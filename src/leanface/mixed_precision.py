"""Measures INT8 networks with parts in floating point as files, in the runtime that reads them on this CPU."""

import tempfile
from collections.abc import Callable, Sequence
from pathlib import Path

import numpy as np
import torch
from jaxtyping import Float
from torch import Tensor, nn

from leanface import bundle, paths
from leanface.config import Budget
from leanface.device import has_vnni
from leanface.export.onnx import describe, export_network, save_model
from leanface.files import write_json
from leanface.metrics.latency import Timing, measure_latency
from leanface.metrics.outputs import mean_errors
from leanface.networks.interface import Flavor
from leanface.networks.quantized import Quantizer
from leanface.quantization.budget import (
    Point,
    State,
    choose,
    errors_alone,
    gains_of,
    keep_floating,
    require_measured,
    search,
)
from leanface.report.front import save_front
from leanface.runtime import Runtime, open_best
from leanface.task import Task

CPU_RUNTIMES = ("openvino", "onnxruntime")
RANKED, BATCH = 64, 32
"""Validation samples by which parts are ranked; files are measured on all of them, in such batches."""

OPSET = 19
WARMUP, WINDOW, WINDOWS_MAX, INTERVAL = 10, 20, 15, 0.01
"""See `leanface.metrics.latency.measure_latency`."""


class MixedPrecision:
    """Networks between the distilled one and its quantized form.

    Args:
        quantized: wholly, with rounded weights.
        before: its state before its weights were rounded.
        reference: what the distilled network answers for the validation split.
    """

    def __init__(
        self,
        task: Task,
        quantized: nn.Module,
        before: State,
        quantizer: Quantizer,
        reference: Float[Tensor, "count outputs"],
    ) -> None:
        self._task, self._quantized, self._before, self._reference = task, quantized, before, reference
        self._quantizer, self._val = quantizer, task.split("val")
        self._flavor: Flavor = "cpu" if has_vnni() else "tensorrt"

    def network(self, quantizer: Quantizer) -> nn.Module:
        """Return the network whose excluded parts are as they were before the quantization."""
        distilled, _ = bundle.load_network(paths.DISTILLED)
        return keep_floating(distilled, self._quantized.state_dict(), self._before, quantizer)

    def keeping(self, parts: tuple[str, ...]) -> Quantizer:
        """Describe the network with these parts in floating point, besides those that the configuration names."""
        excluded = (*self._quantizer.excluded_layers, *parts)
        return self._quantizer.model_copy(update={"excluded_layers": excluded})

    def within(self, budget: Budget) -> tuple[nn.Module, Quantizer]:
        """Return a network within the budget, and which parts it keeps.

        Raises:
            ConfigError: the budget cannot be met; or as `measured`.
        """
        points = self.measured(budget)
        chosen = choose(points, budget)
        picture, measures = [point._asdict() for point in points], [*budget.error] or [self._task.selection]
        save_front(picture, chosen._asdict(), budget.model_dump(), measures, paths.BUDGET_PICTURE)
        quantizer = self.keeping(chosen.kept)
        return self.network(quantizer), quantizer

    def measured(self, budget: Budget, others: Sequence[tuple[str, ...]] = ()) -> list[Point]:
        """Measure the networks of the search; they go to the report, too.

        Args:
            others: parts that are kept in further networks.

        Raises:
            ConfigError: the budget limits an unknown measure.
            BackendError: no runtime runs the files here.
        """
        with tempfile.TemporaryDirectory() as folder, self._open((), Path(folder) / "whole.onnx") as whole:
            errors = self._errors(whole)
            require_measured(budget, errors)
            image = self._val.head(1).images.numpy()
            base_ms = _timed({"whole": lambda: whole.run(image)})["whole"].latency_ms
            images = self._val.head(RANKED).images
            alone = errors_alone(self._quantized, self._before, self._flavor, images, self._task)
            gains = gains_of(alone, errors, budget)

            def measure(parts: tuple[str, ...]) -> Point:
                if not parts:
                    return Point(parts, errors, base_ms)
                with self._open(parts, Path(folder) / "mixed.onnx") as mixed:
                    # In turns: the ratio holds on a machine whose times do not.
                    timings = _timed({"whole": lambda: whole.run(image), "mixed": lambda: mixed.run(image)})
                    ratio = timings["mixed"].speedup
                    assert ratio is not None
                    return Point(parts, self._errors(mixed), base_ms / ratio.value)

            points = [*search(gains, measure), *map(measure, others)]
            record = {"runtime": whole.name, "flavor": self._flavor, "budget": budget.model_dump(), "alone": alone}
        write_json(paths.BUDGET, record | {"points": [point._asdict() for point in points]})
        return points

    def _open(self, parts: tuple[str, ...], path: Path) -> Runtime:
        quantizer = self.keeping(parts)
        _, parent = bundle.load_bundle(paths.DISTILLED)
        spec = parent.model_copy(update={"quantizer": quantizer.model_dump(mode="json")})
        model = export_network(
            self.network(quantizer), spec, "int8", OPSET, dynamic_size=spec.input.any_size, flavor=self._flavor
        )
        save_model(model, path, describe(model))
        return open_best(dict.fromkeys(CPU_RUNTIMES, path)).runtime

    def _errors(self, runtime: Runtime) -> dict[str, float]:
        outputs = np.concatenate([runtime.run(batch.images.numpy()) for batch in self._val.batches(BATCH)])
        return mean_errors(self._task, torch.from_numpy(outputs), self._reference)


def _timed(calls: dict[str, Callable[[], object]]) -> dict[str, Timing]:
    baselines = dict.fromkeys([name for name in calls if name != "whole"], "whole")
    return measure_latency(
        calls, warmup=WARMUP, window=WINDOW, windows_max=WINDOWS_MAX, interval=INTERVAL, baselines=baselines
    )
