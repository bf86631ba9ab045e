"""Stage teacher: the original network, measured on rendered faces against ground truth and on photos without."""

import torch

from leanface import bundle, paths
from leanface.config import Data, Machine, Teacher
from leanface.face.render import Renderer
from leanface.files import write_json
from leanface.synthesis.dataset import FaceDataset, load_photos
from leanface.tasks.face import accuracy, photos
from leanface.tasks.face.breakdown import save_breakdown
from leanface.tasks.face.reconstructions import save_reconstructions, shown_faces, shown_photos
from leanface.tasks.face.task import FaceTask
from leanface.tasks.face.teacher import LICENSES, Request, make_teacher
from leanface.training.fit import MetricLog


def run(
    *, teacher: Teacher, data: Data, machine: Machine, seed: int, log: MetricLog, seconds: float | None = None
) -> dict[str, float]:
    task = FaceTask.load(data)
    model = task.model
    if seconds is not None:
        teacher = teacher.model_copy(update={"piece_seconds": seconds})
    network = make_teacher(Request(teacher, data, machine, seed, task, log))
    provenance = {"source": teacher.source, "seed": seed}
    if teacher.source in LICENSES:
        provenance["license"] = LICENSES[teacher.source]
    spec = bundle.new_spec(network, data.image_size, provenance=provenance)
    bundle.save_bundle(network, spec, paths.TEACHER)

    measure, renderer = teacher.measure, Renderer(model, data.image_size, data.supersample)
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
    write_json(folder / "metrics.json", metrics)
    write_json(folder / "photos.json", photos.photo_report(model, list(portraits), shots, test=others))
    save_reconstructions(renderer, shown, folder / "reconstructions.png")
    return metrics
