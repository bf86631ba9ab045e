"""Measure a network's predictions where the true coefficients are known: over all faces, by yaw and by image size.

Per face, each name prefixed by truth_, beside the `geometry_errors`:

    pitch_deg, yaw_deg, roll_deg     absolute error of each angle
    landmark_px, landmark_nme        distance of the five projected landmarks from the true ones (see `landmark_errors`)
    ssim_render, ssim_face, mse, ... the prediction rendered against the true face rendered (see `render_similarity`)

and over all faces pitch_r2, yaw_r2 and roll_r2, the share of the angle's variance that is explained.
"""

from collections.abc import Sequence
from itertools import pairwise
from typing import Any, NamedTuple

import torch
from jaxtyping import Float
from torch import Tensor, nn

from leanface.config import Measure
from leanface.face.coefficients import split
from leanface.face.errors import geometry_errors
from leanface.face.landmarks import landmarks_image
from leanface.face.render import Renderer
from leanface.metrics.estimate import Samples, means, summarize
from leanface.metrics.outputs import predict
from leanface.synthesis.dataset import FaceDataset
from leanface.synthesis.synthesis import population, render_faces, seed_of
from leanface.tasks.face.fidelity import render_similarity
from leanface.tasks.face.landmarks import interocular_px, landmark_errors

ANGLES = ("pitch", "yaw", "roll")
YAW_EDGES_DEG = (0, 15, 30, 45, 60, 90)
BATCH_SIZE = 16

CONTRASTED = (
    "truth_identity_mm", "truth_expression_mm", "truth_vertex_mm", "truth_albedo_levels", "truth_rotation_deg",
    "truth_landmark_nme", "truth_ssim_face",
)  # fmt: skip
HEADLINES = (
    *CONTRASTED, "truth_pitch_deg", "truth_yaw_deg", "truth_roll_deg", "truth_translation_mm", "truth_ssim_render",
    "truth_mse", "truth_mse_face",
)  # fmt: skip

Row = dict[str, Any]
"""A part of the faces: which, `count`, and `measures` as `summarize` gives them."""


class Accuracy(NamedTuple):
    """A network's readings of the test faces and the errors of each, over all and in parts."""

    readings: Float[Tensor, "count 257"]
    truth: Float[Tensor, "count 257"]
    samples: Samples
    r2: dict[str, float]
    mean_face: dict[str, float]
    by_yaw: list[Row]
    by_size: list[Row]


def measure_accuracy(
    network: nn.Module,
    renderer: Renderer,
    test: FaceDataset,
    truth: Float[Tensor, "count 257"],
    measure: Measure,
    *,
    augment: float,
    seed: int,
) -> Accuracy:
    """Read every test face at its own size, and some of them rendered anew at each of `measure.sizes`."""
    readings = predict(network, test)
    samples = face_errors(renderer, readings, truth)
    average, _ = population(renderer.model)
    return Accuracy(
        readings,
        truth,
        samples,
        angle_r2(readings, truth),
        means(face_errors(renderer, average.expand_as(truth), truth)),
        by_yaw(samples, split(truth).angles_rad[:, 1]),
        by_size(network, renderer, truth[: measure.faces_per_size], augment, measure.sizes, seed),
    )


@torch.inference_mode()
def face_errors(
    renderer: Renderer, predicted: Float[Tensor, "batch 257"], truth: Float[Tensor, "batch 257"]
) -> Samples:
    """Measure every face by every measure."""
    model, size = renderer.model, renderer.size
    errors = geometry_errors(model, predicted, truth)
    errors.pop("nme")  # of the vertices, in 3D; here it is the landmarks' in the picture
    angles_deg = torch.rad2deg((split(predicted).angles_rad - split(truth).angles_rad).abs())
    errors |= {f"{name}_deg": angles_deg[:, index] for index, name in enumerate(ANGLES)}
    points = landmarks_image(model, predicted, size), landmarks_image(model, truth, size)
    errors |= landmark_errors(*points, interocular_px(model, size))
    samples = {name: values.double().numpy() for name, values in errors.items()}
    samples |= render_similarity(renderer, predicted, truth)
    return {f"truth_{name}": values for name, values in samples.items()}


def angle_r2(predicted: Float[Tensor, "batch 257"], truth: Float[Tensor, "batch 257"]) -> dict[str, float]:
    """Return pitch_r2, yaw_r2 and roll_r2: 1 is right, 0 no better than their mean; without those that do not vary."""
    ours, theirs = split(predicted).angles_rad.double(), split(truth).angles_rad.double()
    residual, total = (ours - theirs).square().sum(0), (theirs - theirs.mean(0)).square().sum(0)
    return {
        f"{name}_r2": float(1 - residual[index] / total[index]) for index, name in enumerate(ANGLES) if total[index] > 0
    }


def by_yaw(samples: Samples, yaw_rad: Float[Tensor, " count"]) -> list[Row]:
    """List a row per range of `YAW_EDGES_DEG`, to either side, that holds faces."""
    yaw_deg = torch.rad2deg(yaw_rad.abs()).numpy()
    rows: list[Row] = []
    for low, high in pairwise(YAW_EDGES_DEG):
        inside = (yaw_deg >= low) & (yaw_deg < high)
        if inside.any():
            part = {name: values[inside] for name, values in samples.items()}
            rows.append({"yaw_deg": f"{low}-{high}", "count": int(inside.sum()), "measures": summarize(part)})
    return rows


@torch.inference_mode()
def by_size(
    network: nn.Module,
    renderer: Renderer,
    truth: Float[Tensor, "batch 257"],
    augment: float,
    sizes: Sequence[int],
    seed: int,
) -> list[Row]:
    """Measure the same faces at each image size, rendered anew as the prepared ones are; a row per size.

    The generator restarts for each size, so that a face has the same surroundings, as far as these do not depend on it.
    """
    rows: list[Row] = []
    for size in sizes:
        at_size = Renderer(renderer.model, size, renderer.supersample)
        readings: list[Tensor] = []
        for start in range(0, len(truth), BATCH_SIZE):
            generator = torch.Generator().manual_seed(seed_of(seed, start))
            images = render_faces(at_size, truth[start : start + BATCH_SIZE], generator, augment)
            readings.append(network((images * 255).round() / 255))
        predicted = torch.cat(readings)
        measures = summarize(face_errors(at_size, predicted, truth))
        rows.append({"size_px": size, "count": len(truth), "measures": measures, **angle_r2(predicted, truth)})
    return rows


def accuracy_report(accuracy: Accuracy) -> dict[str, Any]:
    """Return everything measured, as JSON."""
    return {
        "count": len(accuracy.readings),
        "measures": summarize(accuracy.samples),
        **accuracy.r2,
        "mean_face": accuracy.mean_face,
        "by_yaw": accuracy.by_yaw,
        "by_size": accuracy.by_size,
    }


def headline(accuracy: Accuracy) -> dict[str, float]:
    """Return the numbers to compare teachers by; mean_face_ is what answering the mean face to everything scores."""
    found = means(accuracy.samples)
    return {
        **{name: found[name] for name in HEADLINES if name in found},
        **accuracy.r2,
        **{f"mean_face_{name}": accuracy.mean_face[name] for name in CONTRASTED if name in accuracy.mean_face},
        "identity_ratio": found["truth_identity_mm"] / accuracy.mean_face["truth_identity_mm"],
    }
