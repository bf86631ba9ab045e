"""Stage distill: the pruned network learns from the original."""

from leanface import bundle, paths
from leanface.config import Distill, Machine, Samples, TaskChoice
from leanface.distillation.distill import distill as distill_network
from leanface.files import write_json
from leanface.inputs import locate
from leanface.metrics.outputs import predict, reference_errors
from leanface.task import load_task
from leanface.training.fit import MetricLog, Session


def run(
    *,
    task: TaskChoice,
    distill: Distill,
    data: Samples,
    machine: Machine,
    seed: int,
    log: MetricLog,
    seconds: float | None = None,
) -> dict[str, float]:
    loaded = load_task(task, data)
    val = loaded.split("val")
    teacher, original = bundle.load_network(paths.TEACHER)
    start = paths.PRUNED if distill.start_from is None else locate(distill.start_from)
    student, parent = bundle.load_network(start)
    parents = {"parent": bundle.digest(start), "teacher": bundle.digest(paths.TEACHER)}
    outputs = predict(teacher, val)
    session = Session(machine, seed, paths.DISTILL_REPORT, log, paths.DISTILL_STATE, [data, parents], seconds)
    result = distill_network(student, teacher, loaded, distill, session, val=val.labeled(outputs))
    contract = parent.input.model_copy(update={"size": data.image_size})
    lineage = {"teacher_weights": bundle.weights_digest(paths.TEACHER), "license": original.license}
    provenance = parents | {"seed": seed} | lineage
    spec = parent.model_copy(update={"input": contract, "provenance": provenance})
    bundle.save_bundle(student, spec, paths.DISTILLED)

    references = {"teacher": outputs, **val.truth()}
    metrics = reference_errors(loaded, {"distilled": predict(student, val)}, references)
    metrics |= {"best_step": result.best_step}
    metrics |= {"seconds": result.seconds, "images_per_second": result.images_per_second}
    write_json(paths.DISTILL_REPORT / "metrics.json", metrics)
    return metrics
