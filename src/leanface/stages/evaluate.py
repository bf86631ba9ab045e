"""Stage evaluate: one exported network against the original and ground truth, on test faces and photos."""

import torch

from leanface import paths
from leanface.config import Data, Evaluate
from leanface.data.dataset import FaceDataset, load_photos
from leanface.face.morphable_model import load_morphable_model
from leanface.metrics.estimate import means, summarize
from leanface.metrics.evaluation import Judge, write_samples
from leanface.report.files import write_json
from leanface.report.heatmap import save_heatmaps
from leanface.report.pictures import save_comparison, save_comparisons
from leanface.runtime import open_runtime

RUNTIMES = {name: "openvino" if name == "quantized_int8" else "onnxruntime" for name in paths.EXPORTED}
"""On a CPU OpenVINO alone computes the INT8 file in INT8."""


def run(*, variant: str, evaluate: Evaluate, data: Data) -> dict[str, float]:
    folder, name = paths.evaluation_dir(variant), RUNTIMES[variant]
    judge = Judge(load_morphable_model(paths.MORPHABLE_MODEL), data.image_size, data.supersample, evaluate.uv_size)
    test, photos = FaceDataset(paths.FACES / "test").head(evaluate.count), load_photos()
    portraits = torch.stack(list(photos.values()))
    with (
        open_runtime("torch", paths.TEACHER) as original,
        open_runtime(name, paths.onnx_path(variant)) as ours,
    ):
        faces = judge.compare(original.run, ours.run, test.images)
        shots = judge.compare(original.run, ours.run, portraits)
    samples = faces.likeness | judge.errors(faces.compressed, test.coefficients)
    contents = {
        "variant": variant,
        "runtime": name,
        "count": len(test.images),
        "image_size": data.image_size,
        "measures": summarize(samples),
        "mean_face": judge.mean_face(faces.original, test.coefficients),
        "photos": {"names": list(photos), "measures": means(shots.likeness)},
    }
    write_json(folder / "metrics.json", contents)
    write_samples(samples, folder / "samples.csv")
    save_comparisons(judge.renderer, faces, evaluate.picture_count, folder)
    save_comparison(judge.renderer, dict(enumerate(photos)), shots, folder / "photos.png")
    save_heatmaps(judge.model, judge.error_fields_mm(faces, test.coefficients), folder / "heatmap.png")
    return means(samples)
