"""What a compressed network's answer looks like beside the original's: rendered, and unwrapped into UV maps.

Each measure is per sample. Of the two answers, the second (the reference, the original's) says where the face is.

    ssim            mean of ssim_texture and ssim_position: what the system delivers, and what the gate is on
    ssim_texture    SSIM of the UV albedo map, values in [0,1], over the face's texels
    ssim_position   SSIM of the UV position map over the face's texels; its data_range is `position_range_dm`
    ssim_render     SSIM of the re-rendered faces on black, whole frame, values in [0,1]
    ssim_face       the same, over the pixels of the face region as the reference shows it
    mse             MSE of the re-rendered faces on black, whole frame, values in [0,1]
    mse_face        the same, over the face region
    mse_texture     MSE of the UV albedo map over the face's texels
    mse_position    MSE of the UV position map over the face's texels, in units of position_range_dm squared

SSIM of UV maps counts the texels whose whole window lies on the face: the maps are void beyond it. Where the reference
shows no face at all (it looks away, or stands outside the frame), ssim_face and mse_face are NaN.
"""

import math

import numpy as np
import torch
from jaxtyping import Bool, Float
from torch import Tensor

from leanface.face.morphable_model import MorphableModel
from leanface.face.render import Renderer
from leanface.face.texture import UvMap
from leanface.metrics.image import mse, ssim, whole_windows

MEASURES = (
    "ssim",
    "ssim_texture",
    "ssim_position",
    "ssim_render",
    "ssim_face",
    "mse",
    "mse_face",
    "mse_texture",
    "mse_position",
)


def position_range_dm(model: MorphableModel) -> float:
    """Longest side of the mean face region's bounding box: the data_range of position maps.

    Fixed by the model, not by the samples compared, so that numbers from different runs mean the same.
    """
    face = model.mean_vertices[model.face_mask]
    return float((face.amax(dim=0) - face.amin(dim=0)).max())


@torch.inference_mode()
def fidelity(
    model: MorphableModel,
    renderer: Renderer,
    uv_map: UvMap,
    predicted: Float[Tensor, "batch 257"],
    reference: Float[Tensor, "batch 257"],
    batch_size: int = 16,
) -> dict[str, Float[np.ndarray, " batch"]]:
    """Each of `MEASURES`, per sample.

    Raises:
        ValueError: the two do not have the same shape.
    """
    if predicted.shape != reference.shape:
        raise ValueError(f"expected equal shapes, got {tuple(predicted.shape)} and {tuple(reference.shape)}")
    range_dm = position_range_dm(model)
    texels = uv_map.mask.numpy()
    rows: list[dict[str, float]] = []
    for ours, theirs in zip(predicted.split(batch_size), reference.split(batch_size), strict=True):
        images = [_channel_last(renderer(coefficients).image) for coefficients in (ours, theirs)]
        albedos = [uv_map.albedo(coefficients).numpy() for coefficients in (ours, theirs)]
        positions = [uv_map.position(coefficients).numpy() for coefficients in (ours, theirs)]
        faces = renderer.face_alpha(theirs)[:, 0].numpy().astype(bool)
        rows += [
            _compare(
                (images[0][index], images[1][index]),
                (albedos[0][index], albedos[1][index]),
                (positions[0][index] / range_dm, positions[1][index] / range_dm),
                faces[index],
                texels,
            )
            for index in range(len(ours))
        ]
    return {name: np.array([row[name] for row in rows]) for name in MEASURES}


Pair = tuple[Float[np.ndarray, "H W 3"], Float[np.ndarray, "H W 3"]]


def _compare(
    images: Pair, albedos: Pair, positions: Pair, face: Bool[np.ndarray, "H W"], texels: Bool[np.ndarray, "S S"]
) -> dict[str, float]:
    inner = whole_windows(texels)
    texture = ssim(*albedos, data_range=1.0, mask=inner)
    position = ssim(*positions, data_range=1.0, mask=inner)
    shown = bool(face.any())
    return {
        "ssim": (texture + position) / 2,
        "ssim_texture": texture,
        "ssim_position": position,
        "ssim_render": ssim(*images, data_range=1.0),
        "ssim_face": ssim(*images, data_range=1.0, mask=face) if shown else math.nan,
        "mse": mse(*images),
        "mse_face": mse(*images, mask=face) if shown else math.nan,
        "mse_texture": mse(*albedos, mask=texels),
        "mse_position": mse(*positions, mask=texels),
    }


def _channel_last(images: Float[Tensor, "batch 3 H W"]) -> Float[np.ndarray, "batch H W 3"]:
    return images.permute(0, 2, 3, 1).numpy()
