"""Compare what two networks' predictions look like: rendered, and unwrapped into UV maps.

Each measure is per sample. The second prediction (the reference, the teacher's) says where the face is.

    ssim            mean of ssim_texture and ssim_position: what the system delivers, and what the gate is on
    ssim_texture    SSIM of the UV albedo map, values in [0,1], over the face's texels
    ssim_position   SSIM of the UV position map over the face's texels; its data_range is `position_range_dm`
    ssim_render     SSIM of the re-rendered faces on black, whole frame, values in [0,1]
    ssim_face       the same, over the pixels of the face region as the reference shows it
    mse             MSE of the re-rendered faces on black, whole frame, values in [0,1]
    mse_face        the same, over the face region
    mse_texture     MSE of the UV albedo map over the face's texels
    mse_position    MSE of the UV position map over the face's texels, in units of position_range_dm squared

SSIM of UV maps counts the texels whose whole window lies on the face: the maps are void beyond it. Where the
reference shows no face at all (it looks away, or stands outside the frame), ssim_face and mse_face are NaN; where
neither prediction shows anything, so that two black frames would count as alike, ssim_render and mse are NaN too.
"""

import math
from collections.abc import Iterator

import numpy as np
from jaxtyping import Float
from torch import Tensor

from leanface.face.morphable_model import MorphableModel
from leanface.face.render import Renderer
from leanface.face.uv_map import UvMap
from leanface.metrics.estimate import Samples
from leanface.metrics.image import mse, ssim, whole_windows

BATCH_SIZE = 16


def position_range_dm(model: MorphableModel) -> float:
    """Return the longest side of the mean face region's bounding box: the data_range of position maps.

    Fixed by the model, not by the samples compared, so that numbers from different runs mean the same.
    """
    face = model.mean_vertices[model.face_mask]
    return float((face.amax(dim=0) - face.amin(dim=0)).max())


def uv_similarity(
    model: MorphableModel,
    uv_map: UvMap,
    predicted: Float[Tensor, "batch 257"],
    reference: Float[Tensor, "batch 257"],
) -> Samples:
    """Compute what needs no pose and no light: ssim, ssim_texture, ssim_position, mse_texture and mse_position.

    Raises:
        ValueError: the two do not have the same shape.
    """
    face, inner = uv_map.mask.numpy(), whole_windows(uv_map.mask.numpy())
    range_dm = position_range_dm(model)
    rows: list[dict[str, float]] = []
    for ours, theirs in _batches(predicted, reference):
        albedos = uv_map.albedo(ours).numpy(), uv_map.albedo(theirs).numpy()
        positions = (uv_map.position(ours) / range_dm).numpy(), (uv_map.position(theirs) / range_dm).numpy()
        for albedo, position in zip(zip(*albedos, strict=True), zip(*positions, strict=True), strict=True):
            texture_ssim = ssim(*albedo, data_range=1.0, mask=inner)
            position_ssim = ssim(*position, data_range=1.0, mask=inner)
            rows.append(
                {
                    "ssim": (texture_ssim + position_ssim) / 2,
                    "ssim_texture": texture_ssim,
                    "ssim_position": position_ssim,
                    "mse_texture": mse(*albedo, mask=face),
                    "mse_position": mse(*position, mask=face),
                }
            )
    return _columns(rows)


def render_similarity(
    renderer: Renderer, predicted: Float[Tensor, "batch 257"], reference: Float[Tensor, "batch 257"]
) -> Samples:
    """Compute ssim_render, ssim_face, mse and mse_face of each sample.

    Raises:
        ValueError: the two do not have the same shape.
    """
    rows: list[dict[str, float]] = []
    for ours, theirs in _batches(predicted, reference):
        images = _channel_last(renderer(ours).image), _channel_last(renderer(theirs).image)
        faces = renderer.face_alpha(theirs)[:, 0].numpy().astype(bool)
        for pair, face in zip(zip(*images, strict=True), faces, strict=True):
            drawn, shown = any(image.any() for image in pair), bool(face.any())
            rows.append(
                {
                    "ssim_render": ssim(*pair, data_range=1.0) if drawn else math.nan,
                    "ssim_face": ssim(*pair, data_range=1.0, mask=face) if shown else math.nan,
                    "mse": mse(*pair) if drawn else math.nan,
                    "mse_face": mse(*pair, mask=face) if shown else math.nan,
                }
            )
    return _columns(rows)


def _batches(predicted: Tensor, reference: Tensor) -> Iterator[tuple[Tensor, Tensor]]:
    if predicted.shape != reference.shape:
        raise ValueError(f"expected equal shapes, got {tuple(predicted.shape)} and {tuple(reference.shape)}")
    starts = range(0, len(predicted), BATCH_SIZE)
    return ((predicted[it : it + BATCH_SIZE], reference[it : it + BATCH_SIZE]) for it in starts)


def _columns(rows: list[dict[str, float]]) -> Samples:
    return {name: np.array([row[name] for row in rows]) for name in rows[0]} if rows else {}


def _channel_last(images: Float[Tensor, "batch 3 H W"]) -> Float[np.ndarray, "batch H W 3"]:
    return images.permute(0, 2, 3, 1).numpy()
