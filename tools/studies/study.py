"""What all variants of a stage have in common: the faces, the original's answers, and how a student is measured."""

from abc import ABC, abstractmethod
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, ClassVar, Generic, TypeVar

import torch
from torch import Tensor, nn

from leanface import bundle, paths, tracking
from leanface.config import FaceConfig
from leanface.face.render import Renderer
from leanface.face.uv_map import UvMap
from leanface.files import Json
from leanface.metrics.estimate import means
from leanface.metrics.outputs import predict, reference_errors
from leanface.tasks.face.fidelity import render_similarity, uv_similarity
from leanface.tasks.face.task import FaceTask
from leanface.training.fit import MetricLog, resolve_device
from tools.studies.variants import Variant

RENDERED = 256
"""Faces of the val split that are rendered for comparison."""

V = TypeVar("V", bound=Variant)


@dataclass(frozen=True)
class TrainedVariant:
    """One variant's student.

    Attributes:
        metrics: what else is to be told of it than its errors.
        history: of its training, see `leanface.training.fit.FitResult`.
    """

    network: nn.Module
    metrics: dict[str, float]
    history: list[dict[str, float]] = field(default_factory=list[dict[str, float]])


class Study(ABC, Generic[V]):
    """Makes and measures variants of one stage.

    Attributes:
        variant: their type.
    """

    variant: ClassVar[type[Variant]]

    def __init__(self, config: FaceConfig) -> None:
        self.config = config
        self.task = FaceTask.load(config.data)
        self.model = self.task.model
        self.val = self.task.split("val")
        self.teacher, _ = bundle.load_network(paths.TEACHER)
        self.device = resolve_device(config.machine)
        self.teacher_outputs = predict(self.teacher.to(self.device), self.val)
        self.teacher.to("cpu")
        self._renderer = Renderer(self.model, self.val.image_size, config.data.supersample)
        self._uv_map = UvMap(self.model, config.evaluate.uv_size)

    @abstractmethod
    def fingerprint(self, variant: V) -> str:
        """Tells the conditions of one variant from those of any other."""

    @abstractmethod
    def train(self, variant: V, report: Path, log: MetricLog, seconds: float | None) -> TrainedVariant:
        """Its student; the curve and, while it is not finished, the state of its training lie in `report`."""

    def run(self, name: str, variant: V, report: Path, seconds: float | None) -> Json:
        """Make and measure one; see `tools.studies.table.RESULT`."""
        stage = variant.stage
        with tracking.stage_run(f"ablate {stage}: {name}", variant.model_dump(), {"ablation": stage}) as record:
            trained = self.train(variant, report, record.log_live, seconds)
            metrics = self.measure(predict(trained.network, self.val)) | trained.metrics
            record.log(metrics, 0)
        return {
            "variant": variant.model_dump(mode="json"),
            "steps": variant.steps,
            "metrics": metrics,
            "history": trained.history,
        }

    @torch.no_grad()
    def measure(self, predicted: Tensor) -> dict[str, Any]:
        """Geometry against the original (teacher_...) and truth (truth_...), similarity to the original (ssim, ...)."""
        errors = self.errors(predicted, {"teacher": self.teacher_outputs, **self.val.truth()})
        pair = predicted[:RENDERED], self.teacher_outputs[:RENDERED]
        likeness = uv_similarity(self.model, self._uv_map, *pair) | render_similarity(self._renderer, *pair)
        return errors | means(likeness)

    def errors(self, predicted: Tensor, references: dict[str, Tensor]) -> dict[str, float]:
        """As REFERENCE_ERROR."""
        errors = reference_errors(self.task, {"": predicted}, references)
        return {name.removeprefix("/"): value for name, value in errors.items()}
