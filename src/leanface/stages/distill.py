"""Stage distill: the pruned network learns from the original."""

import json

from leanface import bundle, paths
from leanface.config import Distill, Machine
from leanface.data.datamodule import FaceDataModule
from leanface.data.dataset import FaceDataset
from leanface.distillation.criterion import DistillationCriterion
from leanface.face.morphable_model import load_morphable_model
from leanface.metrics.geometry import predict, reference_errors
from leanface.training.fit import MetricLog, fit


def run(*, distill: Distill, machine: Machine, seed: int, log: MetricLog) -> dict[str, float]:
    model = load_morphable_model(paths.MORPHABLE_MODEL)
    teacher, _ = bundle.load_network(paths.TEACHER)
    student, parent = bundle.load_network(paths.PRUNED)
    parents = {"parent": bundle.digest(paths.PRUNED), "teacher": bundle.digest(paths.TEACHER)}
    val = FaceDataset(paths.FACES / "val")
    answers = predict(teacher, val)
    result = fit(
        student,
        DistillationCriterion(teacher, model, distill, parent.kept),
        FaceDataModule(paths.FACES, distill.optimizer.batch_size, seed, val=val.labelled(answers)),
        distill.optimizer,
        machine,
        model=model,
        seed=seed,
        report=paths.DISTILL_REPORT,
        freeze_batch_norm=distill.freeze_batch_norm,
        log=log,
        checkpoint=paths.DISTILL_STATE,
        purpose=[distill, parents],
    )
    spec = parent.model_copy(update={"provenance": parents | {"seed": seed}})
    bundle.save_bundle(student, spec, paths.DISTILLED)

    references = {"teacher": answers, **val.truth()}
    metrics = reference_errors(model, {"distilled": predict(student, val)}, references)
    metrics |= {"seconds": result.seconds, "images_per_second": result.images_per_second}
    (paths.DISTILL_REPORT / "metrics.json").write_text(json.dumps(metrics, indent=1) + "\n")
    return metrics
