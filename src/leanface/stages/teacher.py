"""Stage teacher: the original network, measured on rendered faces against ground truth and on photos without."""

import torch

from leanface import bundle, paths
from leanface.config import Data, Machine, Teacher
from leanface.data.dataset import FaceDataset, load_photos
from leanface.face.morphable_model import load_morphable_model
from leanface.face.render import Renderer
from leanface.metrics import accuracy, photos
from leanface.report.breakdown import save_breakdown
from leanface.report.files import write_json
from leanface.report.reconstructions import save_reconstructions, shown_faces, shown_photos
from leanface.training.fit import MetricLog
from leanface.training.teacher import Request, make_teacher


def run(*, teacher: Teacher, data: Data, machine: Machine, seed: int, log: MetricLog) -> dict[str, float]:
    model = load_morphable_model()
    network = make_teacher(Request(teacher, data, machine, seed, model, log))
    spec = bundle.new_spec(network, data.image_size, provenance={"source": teacher.source, "seed": seed})
    bundle.save_bundle(network, spec, paths.TEACHER)

    measure, renderer = teacher.measure, Renderer(model, data.image_size, data.supersample)
    test, portraits = FaceDataset(paths.FACES / "test"), load_photos()
    truth = torch.from_numpy(test.coefficients)
    faces = accuracy.measure_accuracy(network, renderer, test, truth, measure, augment=data.augment, seed=seed)
    shots = photos.read_photos(network, renderer, torch.stack(list(portraits.values())), measure.jitter_count)
    others = photos.read_photos(network, renderer, test.head(measure.contrast_count).images, measure.jitter_count)

    folder = paths.TEACHER_REPORT
    metrics = accuracy.headline(faces) | photos.headline(shots)
    write_json(folder / "metrics.json", metrics)
    write_json(folder / "accuracy.json", accuracy.accuracy_report(faces))
    write_json(folder / "photos.json", photos.photo_report(model, list(portraits), shots, test=others))
    save_breakdown(faces, folder / "errors.png")
    shown = [*shown_faces(test, faces, measure.picture_count), *shown_photos(portraits, shots, measure.picture_count)]
    save_reconstructions(renderer, shown, folder / "reconstructions.png")
    return metrics
