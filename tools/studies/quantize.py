"""Variants of the quantization: calibrations, and trainings from there."""

import copy
import time
from pathlib import Path

from torch import Tensor, nn

from leanface import bundle, paths
from leanface.config import FaceConfig
from leanface.distillation.distill import train_on
from leanface.export.onnx import export_network
from leanface.metrics.outputs import predict
from leanface.networks.quantized import Quantizer, in_flavor
from leanface.quantization.calibrate import calibrate, quantizer_of, round_calibrated
from leanface.training.checkpoint import fingerprint
from leanface.training.fit import MetricLog, Session
from tools.studies.study import Study, TrainedVariant
from tools.studies.variants import QuantizeVariant


class QuantizeStudy(Study[QuantizeVariant]):
    """All start from the distilled bundle."""

    variant = QuantizeVariant

    def __init__(self, config: FaceConfig) -> None:
        super().__init__(config)
        self._student, self._spec = bundle.load_network(paths.DISTILLED)
        self._parents = {"parent": bundle.digest(paths.DISTILLED), "teacher": bundle.digest(paths.TEACHER)}
        self._float = predict(self._student, self.val)
        self._float_error_mm = self.errors(self._float, {"teacher": self.teacher_outputs})["teacher_vertex_mm"]
        self._sizes_mb: dict[Quantizer | None, float] = {}

    def fingerprint(self, variant: QuantizeVariant) -> str:
        conditions = [variant, self._quantizer(variant), self.config.data, self.config.distill, self._parents]
        return fingerprint(self.teacher, conditions)

    def train(self, variant: QuantizeVariant, report: Path, log: MetricLog, seconds: float | None) -> TrainedVariant:
        settings, quantizer, start = variant.quantize, self._quantizer(variant), time.monotonic()
        network: nn.Module = copy.deepcopy(self._student)
        if quantizer is not None:
            network = calibrate(network, settings, quantizer, self.task.split("train"))
        metrics, history = {"seconds": time.monotonic() - start}, list[dict[str, float]]()
        if settings.method == "qat":
            key, criterion = [self._parents], self.config.distill
            session = Session(self.config.machine, variant.seed, report, log, report / "state.ckpt", key, seconds)
            val = self.val.labeled(self.teacher_outputs)
            trained = train_on(network, self.teacher, self.task, settings.optimizer, criterion, session, val=val)
            metrics |= {"seconds": metrics["seconds"] + trained.seconds, "best_step": trained.best_step}
            history = trained.history
        if quantizer is not None:
            round_calibrated(network, settings, self.task.split("train"))
        return TrainedVariant(network, metrics | self._as_file(network, quantizer), history)

    def measure(self, predicted: Tensor) -> dict[str, float]:
        """Also how far it moved from the floating-point student (float/...), whose error to the original is 1."""
        metrics = super().measure(predicted) | self.errors(predicted, {"float": self._float})
        return metrics | {"over_float": metrics["teacher_vertex_mm"] / self._float_error_mm}

    def _quantizer(self, variant: QuantizeVariant) -> Quantizer | None:
        return None if variant.start == "float" else quantizer_of(variant.quantize, self._spec.widths)

    def _as_file(self, network: nn.Module, quantizer: Quantizer | None) -> dict[str, float]:
        """The size of its ONNX file, and an INT8 file's errors on a CPU, which clips differently (file/...)."""
        if quantizer not in self._sizes_mb:
            export, description = self.config.export, quantizer and quantizer.model_dump(mode="json")
            spec = self._spec.model_copy(update={"quantizer": description})
            model = export_network(network, spec, spec.scheme or "fp32", export.opset, dynamic_size=export.dynamic_size)
            self._sizes_mb[quantizer] = model.ByteSize() / 1e6
        metrics = {"size_mb": self._sizes_mb[quantizer]}
        if quantizer is not None:
            predicted = predict(in_flavor(network, "tensorrt"), self.val)
            errors = self.errors(predicted, {"teacher": self.teacher_outputs, "float": self._float})
            metrics |= {f"file/{name}": value for name, value in errors.items()}
        return metrics
