"""Variants of the distillation: what the student starts from, the loss, and how it is trained."""

import functools
from pathlib import Path

from torch import nn

from leanface import bundle, paths
from leanface.config import FaceConfig, Prune
from leanface.distillation.distill import distill
from leanface.training.checkpoint import fingerprint
from leanface.training.fit import MetricLog, Session
from tools.studies.start import Kept, pipeline_student, pruned_student, starting_network
from tools.studies.study import Study, TrainedVariant
from tools.studies.variants import DistillVariant


class DistillStudy(Study[DistillVariant]):
    """Variants that do not prune anew start from the pruned bundle."""

    variant = DistillVariant

    def __init__(self, config: FaceConfig) -> None:
        super().__init__(config)
        self._students: dict[str, tuple[nn.Module, Kept]] = {}

    @functools.cached_property
    def _digests(self) -> dict[str, str]:
        return {"teacher": bundle.digest(paths.TEACHER)}

    @functools.cached_property
    def _pipelines_digests(self) -> dict[str, str]:
        return {"parent": bundle.digest(paths.PRUNED)} | self._digests

    def fingerprint(self, variant: DistillVariant) -> str:
        return fingerprint(self.teacher, [variant, self.config.data, self._parents(variant.prune)])

    def train(self, variant: DistillVariant, report: Path, log: MetricLog, seconds: float | None) -> TrainedVariant:
        pruned, kept = self._student(variant.prune, variant.seed)
        student = starting_network(variant.start, self.teacher, pruned, kept, self.task, variant.seed)
        key = [self.config.data, variant.start, self._parents(variant.prune)]
        session = Session(self.config.machine, variant.seed, report, log, report / "state.ckpt", key, seconds)
        val = self.val.labeled(self.teacher_outputs)
        trained = distill(student, self.teacher, self.task, variant.distill, session, val=val)
        metrics = {"best_step": trained.best_step, "seconds": trained.seconds}
        return TrainedVariant(student, self.cost(student) | metrics, trained.history)

    def _student(self, settings: Prune | None, seed: int) -> tuple[nn.Module, Kept]:
        key = "" if settings is None else f"{settings.model_dump_json()} {seed}"
        if key not in self._students:
            self._students[key] = (
                pipeline_student()
                if settings is None
                else pruned_student(self.teacher, settings, self.task, seed, self.device)
            )
        return self._students[key]

    def _parents(self, settings: Prune | None) -> dict[str, str]:
        return self._digests if settings is not None else self._pipelines_digests
