"""Stage evaluate: one exported network against the original and ground truth, on test faces and photos."""

import torch

from leanface import paths
from leanface.config import Data, Evaluate
from leanface.face.morphable_model import load_morphable_model
from leanface.files import write_json
from leanface.metrics.estimate import means, summarize, undefined
from leanface.metrics.evaluation import Judge, write_samples
from leanface.report.heatmap import save_heatmaps
from leanface.report.pictures import save_comparison, save_comparisons
from leanface.runtime import exported_files_of, open_best, open_runtime
from leanface.synthesis.dataset import FaceDataset, load_photos

BATCH_SIZE = 32


def run(*, variant: str, evaluate: Evaluate, data: Data) -> dict[str, float]:
    folder = paths.evaluation_dir(variant)
    judge = Judge(load_morphable_model(paths.MORPHABLE_MODEL), data.image_size, data.supersample, evaluate.uv_size)
    test, photos = FaceDataset(paths.FACES / "test").head(evaluate.count), load_photos()
    portraits = torch.stack(list(photos.values()))
    choice = open_best(exported_files_of(variant))
    with choice.runtime as ours, open_runtime("torch", paths.TEACHER) as original:
        batch = ours.input_spec.largest_batch(BATCH_SIZE)
        faces = judge.compare(original.run, ours.run, test.images, batch)
        shots = judge.compare(original.run, ours.run, portraits, batch)
    samples = faces.likeness | judge.errors(faces.compressed, test.targets)
    contents = {
        "variant": variant,
        "runtime": choice.runtime.name,
        "better_runtimes": choice.skipped,
        "count": len(test.images),
        "image_size": data.image_size,
        "measures": summarize(samples),
        "undefined": undefined(samples),
        "mean_face": judge.mean_face(faces.original, test.targets),
        "photos": {"names": list(photos), "measures": means(shots.likeness), "undefined": undefined(shots.likeness)},
    }
    write_json(folder / "metrics.json", contents)
    write_samples(samples, folder / "samples.csv")
    save_comparisons(judge.renderer, faces, evaluate.picture_count, folder)
    save_comparison(judge.renderer, dict(enumerate(photos)), shots, folder / "photos.png")
    save_heatmaps(judge.model, judge.error_fields_mm(faces, test.targets), folder / "heatmap.png")
    return means(samples)
