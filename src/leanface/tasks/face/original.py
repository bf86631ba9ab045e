"""Make the face's original network, and measure it on rendered faces against ground truth and on photos without."""

import torch

from leanface import paths
from leanface.config import Data, Machine, Teacher
from leanface.face.render import Renderer
from leanface.files import write_json
from leanface.synthesis.dataset import FaceDataset, load_photos
from leanface.task import MadeTeacher, MetricLog
from leanface.tasks.face import accuracy, photos
from leanface.tasks.face.breakdown import save_breakdown
from leanface.tasks.face.reconstructions import save_reconstructions, shown_faces, shown_photos
from leanface.tasks.face.task import FaceTask
from leanface.tasks.face.teacher import LICENSES, Request, original_network


def make_teacher(
    settings: Teacher, data: Data, machine: Machine, seed: int, log: MetricLog, seconds: float | None
) -> MadeTeacher:
    """Load or train it, and measure it; see `leanface.task.WholeTask.make_teacher`."""
    task = FaceTask.load(data)
    model = task.model
    if seconds is not None:
        settings = settings.model_copy(update={"piece_seconds": seconds})
    network = original_network(Request(settings, data, machine, seed, task, log))

    measure, renderer = settings.measure, Renderer(model, data.image_size, data.supersample)
    test, portraits = FaceDataset(paths.FACES / "test"), load_photos()
    shots = photos.read_photos(network, renderer, torch.stack(list(portraits.values())), measure.jitter_count)
    others = photos.read_photos(network, renderer, test.head(measure.contrast_count).images, measure.jitter_count)
    metrics = photos.headline(shots)
    shown = shown_photos(portraits, shots, measure.picture_count)

    folder = paths.TEACHER_REPORT
    for truth in test.truth().values():  # photos have none
        faces = accuracy.measure_accuracy(network, renderer, test, truth, measure, augment=data.augment, seed=seed)
        metrics = accuracy.headline(faces) | metrics
        shown = [*shown_faces(test, faces, measure.picture_count), *shown]
        write_json(folder / "accuracy.json", accuracy.accuracy_report(faces))
        save_breakdown(faces, folder / "errors.png")
    write_json(folder / "photos.json", photos.photo_report(model, list(portraits), shots, test=others))
    save_reconstructions(renderer, shown, folder / "reconstructions.png")
    return MadeTeacher(network, LICENSES.get(settings.source), metrics)
