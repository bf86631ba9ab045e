"""Stage evaluate: one exported network against the teacher and the truth, on test samples."""

from leanface import paths
from leanface.config import Evaluate, Samples, TaskChoice
from leanface.files import atomic_write
from leanface.metrics.estimate import estimates, means, undefined, write_samples
from leanface.metrics.measurements import Evaluation, PhotoScores
from leanface.runtime import exported_files_of, open_best, open_runtime
from leanface.task import evaluate_of

BATCH_SIZE = 32


def run(*, variant: str, task: TaskChoice, evaluate: Evaluate, data: Samples) -> dict[str, float]:
    folder = paths.evaluation_dir(variant)
    choice = open_best(exported_files_of(variant))
    with choice.runtime as student, open_runtime("torch", paths.TEACHER) as teacher:
        batch = student.input_spec.largest_batch(BATCH_SIZE)
        scores = evaluate_of(task)(teacher.run, student.run, evaluate, data, batch, folder)
    photos = PhotoScores(names=scores.photo_names, measures=means(scores.photos), undefined=undefined(scores.photos))
    evaluation = Evaluation(
        variant=variant,
        runtime=choice.runtime.name,
        better_runtimes=choice.skipped,
        count=len(next(iter(scores.samples.values()))),
        image_size=data.image_size,
        measures=estimates(scores.samples),
        undefined=undefined(scores.samples),
        constant=scores.constant,
        photos=photos if photos.names else None,
    )
    atomic_write(folder / "metrics.json", evaluation.model_dump_json(indent=1) + "\n")
    write_samples(scores.samples, folder / "samples.csv")
    return means(scores.samples)
