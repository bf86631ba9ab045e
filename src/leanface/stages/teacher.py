"""Stage teacher: the original network, measured against ground truth."""

import json

import torch

from leanface import bundle, paths
from leanface.config import Data, Machine, Teacher
from leanface.data.dataset import FaceDataset, load_photos
from leanface.data.synthesis import population
from leanface.face.morphable_model import load_morphable_model
from leanface.metrics.geometry import mean_errors, predict
from leanface.report.reconstructions import reconstruction_sheet
from leanface.training.fit import MetricLog
from leanface.training.teacher import Request, make_teacher


def run(*, teacher: Teacher, data: Data, machine: Machine, seed: int, log: MetricLog) -> dict[str, float]:
    model = load_morphable_model(paths.MORPHABLE_MODEL)
    network = make_teacher(Request(teacher, data, machine, seed, model, log))
    spec = bundle.new_spec(network, data.image_size, provenance={"source": teacher.source, "seed": seed})
    bundle.save_bundle(network, spec, paths.TEACHER)

    test = FaceDataset(paths.FACES / "test")
    metrics: dict[str, float] = {}
    for truth in test.truth().values():  # none of photos
        mean, _ = population(model)
        errors = mean_errors(model, predict(network, test), truth)
        mean_face = mean_errors(model, mean.expand_as(truth), truth)
        metrics |= errors | {f"mean_face_{name}": value for name, value in mean_face.items()}
        metrics["identity_ratio"] = errors["identity_mm"] / mean_face["identity_mm"]
    paths.TEACHER_REPORT.mkdir(parents=True, exist_ok=True)
    (paths.TEACHER_REPORT / "metrics.json").write_text(json.dumps(metrics, indent=1) + "\n")
    images = torch.cat([test.head(6).images, *(photo[None] for photo in load_photos().values())])
    reconstruction_sheet(model, images, network, paths.TEACHER_REPORT / "reconstructions.png")
    return metrics
