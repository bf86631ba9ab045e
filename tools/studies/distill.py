"""Variants of the distillation: the loss, and how the student is trained."""

from pathlib import Path

from leanface import bundle, paths
from leanface.config import FaceConfig
from leanface.distillation.distill import distill
from leanface.training.checkpoint import fingerprint
from leanface.training.fit import MetricLog, Session
from tools.studies.study import Study, TrainedVariant
from tools.studies.variants import DistillVariant


class DistillStudy(Study[DistillVariant]):
    """All start from the pruned bundle."""

    variant = DistillVariant

    def __init__(self, config: FaceConfig) -> None:
        super().__init__(config)
        self._parents = {"parent": bundle.digest(paths.PRUNED), "teacher": bundle.digest(paths.TEACHER)}

    def fingerprint(self, variant: DistillVariant) -> str:
        return fingerprint(self.teacher, [variant, self.config.data, self._parents])

    def train(self, variant: DistillVariant, report: Path, log: MetricLog, seconds: float | None) -> TrainedVariant:
        student, _ = bundle.load_network(paths.PRUNED)
        key = [self.config.data, self._parents]
        session = Session(self.config.machine, variant.seed, report, log, report / "state.ckpt", key, seconds)
        val = self.val.labeled(self.teacher_outputs)
        trained = distill(student, self.teacher, self.task, variant.distill, session, val=val)
        metrics = {"best_step": trained.best_step, "seconds": trained.seconds}
        return TrainedVariant(student, metrics, trained.history)
