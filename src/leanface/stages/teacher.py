"""Stage teacher: the original network, loaded or trained, and measured."""

from leanface import bundle, paths
from leanface.config import Machine, Original, Samples, TaskChoice
from leanface.files import write_json
from leanface.task import MetricLog, make_teacher_of


def run(
    *,
    task: TaskChoice,
    teacher: Original,
    data: Samples,
    machine: Machine,
    seed: int,
    log: MetricLog,
    seconds: float | None = None,
) -> dict[str, float]:
    made = make_teacher_of(task)(teacher, data, machine, seed, log, seconds)
    provenance = {"source": teacher.source, "seed": seed}
    provenance |= {} if made.license is None else {"license": made.license}
    spec = bundle.new_spec(made.network, data.image_size, task.name, provenance=provenance)
    bundle.save_bundle(made.network, spec, paths.TEACHER)
    write_json(paths.TEACHER_REPORT / "metrics.json", made.metrics)
    return made.metrics
