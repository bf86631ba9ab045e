"""Judge one face network: against the original and ground truth, on test faces and on photos."""

from pathlib import Path

import torch

from leanface import paths
from leanface.config import Data, FaceEvaluate
from leanface.face.morphable_model import load_morphable_model
from leanface.synthesis.dataset import FaceDataset, load_photos
from leanface.task import Run, Scores
from leanface.tasks.face.evaluation import Evaluator
from leanface.tasks.face.heatmap import save_heatmaps
from leanface.tasks.face.pictures import save_comparison, save_comparisons


def evaluate(teacher: Run, student: Run, settings: FaceEvaluate, data: Data, batch_size: int, folder: Path) -> Scores:
    """Compare two networks, and draw what they make of faces; see `leanface.task.WholeTask.evaluate`."""
    evaluator = Evaluator(
        load_morphable_model(paths.MORPHABLE_MODEL), data.image_size, data.supersample, settings.uv_size
    )
    test, photos = FaceDataset(paths.FACES / "test").head(settings.count), load_photos()
    faces = evaluator.compare(teacher, student, test.images, batch_size)
    shots = evaluator.compare(teacher, student, torch.stack(list(photos.values())), batch_size)
    save_comparisons(evaluator.renderer, faces, settings.picture_count, folder)
    save_comparison(evaluator.renderer, dict(enumerate(photos)), shots, folder / "photos.png")
    save_heatmaps(evaluator.model, evaluator.error_fields_mm(faces, test.targets), folder / "heatmap.png")
    return Scores(
        samples=faces.similarity | evaluator.errors(faces.student, test.targets),
        constant=evaluator.mean_face(faces.teacher, test.targets),
        photo_names=tuple(photos),
        photos=shots.similarity,
    )
