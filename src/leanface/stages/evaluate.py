"""Stage evaluate: one exported network against the original and against ground truth, on test faces and photos."""

import torch

from leanface import paths
from leanface.config import Data, Evaluate
from leanface.data.dataset import FaceDataset, load_photos
from leanface.data.synthesis import population
from leanface.face.morphable_model import load_morphable_model
from leanface.face.render import Renderer
from leanface.face.texture import UvMap
from leanface.metrics import evaluation
from leanface.report.files import write_json
from leanface.report.pictures import save_comparison
from leanface.runtime import open_runtime

RUNTIMES = {name: "openvino" if name == "quantized_int8" else "onnxruntime" for name in paths.VARIANTS}
"""On a CPU OpenVINO alone computes the INT8 file in INT8."""


def run(*, variant: str, evaluate: Evaluate, data: Data) -> dict[str, float]:
    model, folder = load_morphable_model(), paths.evaluation_dir(variant)
    renderer, uv_map = Renderer(model, data.image_size, data.supersample), UvMap(model, evaluate.uv_size)
    test, photos = FaceDataset(paths.FACES / "test").head(evaluate.count), load_photos()
    images, count = torch.cat([test.images, torch.stack(list(photos.values()))]), len(test.images)
    with (
        open_runtime("torch", paths.TEACHER, threads=0) as original,
        open_runtime(RUNTIMES[variant], paths.onnx_path(variant), threads=0) as compressed,
    ):
        theirs, ours = (evaluation.answers(network.run, images) for network in (original, compressed))

    likeness = evaluation.compare(model, renderer, uv_map, ours[:count], theirs[:count])
    samples = likeness | evaluation.errors_against_truth(model, ours[:count], test.coefficients)
    on_photos = evaluation.compare(model, renderer, uv_map, ours[count:], theirs[count:])
    evaluation.write_samples(samples, folder / "samples.csv")
    contents = {"variant": variant, "runtime": RUNTIMES[variant], "count": count, "image_size": data.image_size}
    contents |= {"measures": evaluation.summarize(samples)}
    contents |= {"mean_face": evaluation.mean_face_errors(model, population(model)[0], test.coefficients)}
    contents |= {"photos": {name: evaluation.sample(on_photos, i) for i, name in enumerate(photos)}}
    write_json(folder / "metrics.json", contents)

    shown = slice(0, min(evaluate.picture_count, count))
    names = [f"test face {index}" for index in range(count)][shown]
    save_comparison(renderer, names, images[shown], theirs[shown], ours[shown], likeness, folder / "faces.png")
    rest = slice(count, None)
    save_comparison(renderer, list(photos), images[rest], theirs[rest], ours[rest], on_photos, folder / "photos.png")
    return evaluation.means(samples)
