"""Stage distill: the pruned network learns from the original."""

from pathlib import Path

from leanface import bundle, paths
from leanface.config import Data, Distill, Machine
from leanface.distillation.distill import distill as distill_network
from leanface.face.morphable_model import load_morphable_model
from leanface.files import write_json
from leanface.metrics.geometry import predict, reference_errors
from leanface.synthesis.dataset import FaceDataset
from leanface.training.fit import MetricLog


def run(
    *, distill: Distill, data: Data, machine: Machine, seed: int, log: MetricLog, seconds: float | None = None
) -> dict[str, float]:
    model, val = load_morphable_model(paths.MORPHABLE_MODEL), FaceDataset(paths.FACES / "val")
    teacher, original = bundle.load_network(paths.TEACHER)
    start = paths.PRUNED if distill.start_from is None else Path(distill.start_from)
    student, parent = bundle.load_network(start)
    parents = {"parent": bundle.digest(start), "teacher": bundle.digest(paths.TEACHER)}
    answers = predict(teacher, val)
    result = distill_network(
        student,
        teacher,
        parent.kept,
        distill,
        data=data,
        machine=machine,
        model=model,
        val=val.labelled(answers),
        seed=seed,
        report=paths.DISTILL_REPORT,
        log=log,
        checkpoint=paths.DISTILL_STATE,
        purpose=[parents],
        piece_seconds=seconds,
    )
    contract = parent.input.model_copy(update={"size": data.image_size})
    provenance = parents | {"seed": seed, "licence": original.licence}
    spec = parent.model_copy(update={"input": contract, "provenance": provenance})
    bundle.save_bundle(student, spec, paths.DISTILLED)

    references = {"teacher": answers, **val.truth()}
    metrics = reference_errors(model, {"distilled": predict(student, val)}, references)
    metrics |= {"best_step": result.best_step}
    metrics |= {"seconds": result.seconds, "images_per_second": result.images_per_second}
    write_json(paths.DISTILL_REPORT / "metrics.json", metrics)
    return metrics
