"""Stage evaluate: one exported network against the teacher and ground truth, on test faces and photos."""

import torch

from leanface import paths
from leanface.config import Data, Evaluate
from leanface.face.morphable_model import load_morphable_model
from leanface.files import atomic_write
from leanface.metrics.estimate import estimates, means, undefined
from leanface.metrics.measurements import Evaluation, PhotoScores
from leanface.runtime import exported_files_of, open_best, open_runtime
from leanface.synthesis.dataset import FaceDataset, load_photos
from leanface.tasks.face.evaluation import Evaluator, write_samples
from leanface.tasks.face.heatmap import save_heatmaps
from leanface.tasks.face.pictures import save_comparison, save_comparisons

BATCH_SIZE = 32


def run(*, variant: str, evaluate: Evaluate, data: Data) -> dict[str, float]:
    folder = paths.evaluation_dir(variant)
    evaluator = Evaluator(
        load_morphable_model(paths.MORPHABLE_MODEL), data.image_size, data.supersample, evaluate.uv_size
    )
    test, photos = FaceDataset(paths.FACES / "test").head(evaluate.count), load_photos()
    portraits = torch.stack(list(photos.values()))
    choice = open_best(exported_files_of(variant))
    with choice.runtime as student, open_runtime("torch", paths.TEACHER) as teacher:
        batch = student.input_spec.largest_batch(BATCH_SIZE)
        faces = evaluator.compare(teacher.run, student.run, test.images, batch)
        shots = evaluator.compare(teacher.run, student.run, portraits, batch)
    samples = faces.similarity | evaluator.errors(faces.student, test.targets)
    evaluation = Evaluation(
        variant=variant,
        runtime=choice.runtime.name,
        better_runtimes=choice.skipped,
        count=len(test.images),
        image_size=data.image_size,
        measures=estimates(samples),
        undefined=undefined(samples),
        mean_face=evaluator.mean_face(faces.teacher, test.targets),
        photos=PhotoScores(
            names=tuple(photos), measures=means(shots.similarity), undefined=undefined(shots.similarity)
        ),
    )
    atomic_write(folder / "metrics.json", evaluation.model_dump_json(indent=1) + "\n")
    write_samples(samples, folder / "samples.csv")
    save_comparisons(evaluator.renderer, faces, evaluate.picture_count, folder)
    save_comparison(evaluator.renderer, dict(enumerate(photos)), shots, folder / "photos.png")
    save_heatmaps(evaluator.model, evaluator.error_fields_mm(faces, test.targets), folder / "heatmap.png")
    return means(samples)
