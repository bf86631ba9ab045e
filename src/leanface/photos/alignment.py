"""The one preprocessing: a photo and five landmarks give the square crop that every network here reads.

The crop is a pure scaling and shift of the photo (no rotation: the network regresses the head's) that brings
the landmarks, by least squares, to where a render of the mean face has them.

Frames: photo and crop pixels have x right, y down and pixel centers at integers; the face has x right, y up
and z towards the camera, in decimeters.

Source: Deng et al., "Accurate 3D Face Reconstruction with Weakly-Supervised Learning", CVPRW 2019
(arXiv:1903.08527), and align_img in https://github.com/sicxu/Deep3DFaceRecon_pytorch.
"""

import math
from dataclasses import dataclass

import numpy as np
from jaxtyping import Float, Float32, Int, UInt8
from PIL import Image

from leanface.errors import ArtifactError
from leanface.face.geometry import DISTANCE_DM, REFERENCE_SIZE_PX, project
from leanface.photos.pixels import require_rgb

BICUBIC_SUPPORT_PX = 2

MEAN_FACE_LANDMARKS_DM: Float[np.ndarray, "5 3"] = np.array(
    [
        (-0.2986, 0.3100, -0.1000),
        (0.2986, 0.3100, -0.1000),
        (0.0000, -0.1313, 0.1959),
        (-0.2560, -0.4173, -0.1231),
        (0.2560, -0.4173, -0.1231),
    ]
)
"""Image-left eye, image-right eye, nose tip, image-left and image-right mouth corner of the packaged model's
mean face, in its own frame."""


@dataclass(frozen=True)
class Alignment:
    """How a crop lies in its photo: crop = scale * photo + (tx, ty), in pixels.

    Attributes:
        scale: crop pixels per photo pixel.
        tx: where the photo's x = 0 falls, in crop pixels.
        ty: where the photo's y = 0 falls, in crop pixels.
        size: side of the crop in pixels.
    """

    scale: float
    tx: float
    ty: float
    size: int

    def crop_from_photo(self, points: Float[np.ndarray, "*N 2"]) -> Float[np.ndarray, "*N 2"]:
        """Convert photo pixels to crop pixels."""
        return points * self.scale + (self.tx, self.ty)

    def resized(self, size: int) -> "Alignment":
        """Return the same square of the photo as a crop of another size."""
        ratio = size / self.size
        # Pixel centers lie at integers: edges scale, not centers.
        tx, ty = (ratio * (t + 0.5) - 0.5 for t in (self.tx, self.ty))
        return Alignment(ratio * self.scale, tx, ty, size)

    def photo_from_crop(self, points: Float[np.ndarray, "*N 2"]) -> Float[np.ndarray, "*N 2"]:
        """Convert crop pixels to photo pixels."""
        return (points - (self.tx, self.ty)) / self.scale


def template_from_landmarks3d(
    points: Float[np.ndarray, "N 3"], size: int = REFERENCE_SIZE_PX
) -> Float[np.ndarray, "N 2"]:
    """Project points of an unposed face (dm) into a crop of `size` pixels, as the renderer does."""
    return project(np.asarray(points, np.float64), size, DISTANCE_DM)[:, :2]


TEMPLATE_224: Float[np.ndarray, "5 2"] = template_from_landmarks3d(MEAN_FACE_LANDMARKS_DM)
"""Where the mean face's landmarks are in a crop of 224 pixels."""


def align(
    image: UInt8[np.ndarray, "H W 3"],
    landmarks: Float[np.ndarray, "5 2"],
    template: Float[np.ndarray, "5 2"] = TEMPLATE_224,
    size: int = REFERENCE_SIZE_PX,
) -> tuple[UInt8[np.ndarray, "size size 3"], Alignment]:
    """Cut the face out of a photo, framed as in a render of the mean face.

    Args:
        image: RGB photo; it is not changed.
        landmarks: where `template`'s points are in the photo (pixels).
        template: where they should be, in pixels of a crop of 224 (other sizes scale with it).
        size: side of the crop in pixels.

    Returns:
        The crop, anti-aliased, with the photo's edge pixels repeated where it reaches beyond the photo, and
        how it lies in the photo.

    Raises:
        ValueError: an array has the wrong dtype or shape, or `size` is not positive.
        ArtifactError: the landmarks are not those of an upright face in this photo.
    """
    require_rgb(image)
    return cut_out(image, landmarks, template, size)


def cut_out(
    image: UInt8[np.ndarray, "H W 3"],
    landmarks: Float[np.ndarray, "5 2"],
    template: Float[np.ndarray, "5 2"],
    size: int,
) -> tuple[UInt8[np.ndarray, "size size 3"], Alignment]:
    """Crop as `align` does, from a photo that was checked before."""
    alignment = fit(landmarks, template, size)
    height, width = image.shape[:2]
    reach = max(height, width)
    if (landmarks < -reach).any() or (landmarks > (width + reach, height + reach)).any():
        raise ArtifactError(
            f"the landmarks {np.round(landmarks).tolist()} lie far outside the photo of {width}x{height} "
            "pixels. Give them in pixels of this very photo, as (x, y)."
        )
    return resample(image, alignment), alignment


def fit(
    landmarks: Float[np.ndarray, "5 2"],
    template: Float[np.ndarray, "5 2"] = TEMPLATE_224,
    size: int = REFERENCE_SIZE_PX,
) -> Alignment:
    """Fit where the crop lies; arguments and errors as for `align`."""
    if landmarks.shape != (5, 2) or template.shape != (5, 2):
        raise ValueError(
            f"expected landmarks and a template of shape (5, 2), got {landmarks.shape} and {template.shape}; "
            "project a 3D template with template_from_landmarks3d"
        )
    if size < 1:
        raise ValueError(f"the crop's size must be at least 1 pixel, got {size}")
    target = (template + 0.5) * (size / REFERENCE_SIZE_PX) - 0.5
    source_center, target_center = landmarks.mean(axis=0), target.mean(axis=0)
    source, target = landmarks - source_center, target - target_center
    if not _looks_like(source, target):
        raise ArtifactError(
            f"the landmarks {np.round(landmarks, 1).tolist()} are not those of an upright face. Give "
            "image-left eye, image-right eye, nose tip, image-left and image-right mouth corner, as (x, y), "
            "and turn the photo upright."
        )
    scale = float((source * target).sum() / (source**2).sum())
    tx, ty = target_center - scale * source_center
    return Alignment(scale, float(tx), float(ty), size)


def roll_of(landmarks: Float[np.ndarray, "5 2"], template: Float[np.ndarray, "5 2"] = TEMPLATE_224) -> float:
    """Estimate how far a face is turned clockwise in the picture's plane (radians); arguments as for `fit`."""
    source, target = landmarks - landmarks.mean(axis=0), template - template.mean(axis=0)
    across = float((target[:, 0] * source[:, 1] - target[:, 1] * source[:, 0]).sum())
    return math.atan2(across, float((source * target).sum()))


def cut_out_turned(
    image: UInt8[np.ndarray, "H W 3"],
    landmarks: Float[np.ndarray, "5 2"],
    template: Float[np.ndarray, "5 2"],
    size: int,
    turn_rad: float,
) -> tuple[UInt8[np.ndarray, "size size 3"], Alignment]:
    """Crop as `cut_out` does, upright, a face that is turned clockwise by so much.

    Returns:
        The crop, and the alignment of a crop that was not turned, but has the same middle and scale. Turning points
        about the middle of the crop by `turn_rad` leads from the first to the second.
    """
    center = landmarks.mean(axis=0)
    cos, sin = math.cos(turn_rad), math.sin(turn_rad)
    turn = np.array([(cos, -sin), (sin, cos)])
    upright = fit((landmarks - center) @ turn, template, size)
    # A square of the photo about the crop's middle that holds the crop and what its filter sees, however it is turned.
    middle = np.full(2, (size - 1) / 2)
    place = center + turn @ upright.photo_from_crop(middle)
    reach = math.ceil((size / 2 + BICUBIC_SUPPORT_PX) * max(1.0, 1 / upright.scale) + BICUBIC_SUPPORT_PX)
    corner = np.floor(place).astype(int) - math.ceil(reach * math.sqrt(2))
    side = 2 * math.ceil(reach * math.sqrt(2)) + 1
    square = Image.fromarray(_region(image, corner, corner + side))
    # Pillow counts from the edges of pixels, and asks where each pixel of the result comes from.
    within = place - corner + 0.5
    origin = within - turn @ (reach, reach)
    matrix = (cos, -sin, float(origin[0]), sin, cos, float(origin[1]))
    patch = square.transform((2 * reach, 2 * reach), Image.Transform.AFFINE, matrix, Image.Resampling.BICUBIC)
    shift = float(middle[0]) - upright.scale * (reach - 0.5)
    crop = resample(np.asarray(patch), Alignment(upright.scale, shift, shift, size))
    tx, ty = (middle - upright.scale * place).tolist()
    return crop, Alignment(upright.scale, tx, ty, size)


def to_input(crops: UInt8[np.ndarray, "*batch H W 3"]) -> Float32[np.ndarray, "*batch 3 H W"]:
    """Turn crops into what every network here takes: RGB planes in [0, 1], no mean or deviation taken out.

    This is the only place where bytes become numbers, in training and in use.

    Raises:
        ValueError: the crops are not uint8 (..., H, W, 3).
    """
    if crops.dtype != np.uint8 or crops.ndim < 3 or crops.shape[-1] != 3:
        raise ValueError(f"expected crops as uint8 (..., H, W, 3), got {crops.dtype} {crops.shape}")
    planes = np.ascontiguousarray(np.moveaxis(crops, -1, -3), dtype=np.float32)
    return np.divide(planes, np.float32(255), out=planes)


def _looks_like(source: Float[np.ndarray, "5 2"], target: Float[np.ndarray, "5 2"]) -> bool:
    """Tell whether centered landmarks can be a turned head's: neither in one line nor reversed."""
    if not np.isfinite(source).all():
        return False
    affine, *_ = np.linalg.lstsq(target, source)
    longest, shortest = np.linalg.svd(affine, compute_uv=False)
    return bool(shortest > 0.15 * longest and affine[0, 0] > 0 and affine[1, 1] > 0)


def resample(image: UInt8[np.ndarray, "H W 3"], alignment: Alignment) -> UInt8[np.ndarray, "size size 3"]:
    """Cut the crop that an alignment describes out of an RGB photo, as `align` does."""
    # The crop's corners in the photo's edge coordinates, where its pixels span [0, W] x [0, H].
    corners = np.array([(-0.5, -0.5), (alignment.size - 0.5, alignment.size - 0.5)])
    box = alignment.photo_from_crop(corners) + 0.5
    # Taking the region by clipped indices repeats the edges and keeps the work independent of the photo's
    # size; the margin lets the filter, which widens as it shrinks the photo, see the pixels around the crop.
    margin = math.ceil(BICUBIC_SUPPORT_PX * max(1.0, 1 / alignment.scale)) + 1
    start, stop = np.floor(box[0]).astype(int) - margin, np.ceil(box[1]).astype(int) + margin
    region = Image.fromarray(_region(image, start, stop))
    size = (alignment.size, alignment.size)
    return np.array(region.resize(size, Image.Resampling.BICUBIC, box=tuple((box - start).ravel())))


def _region(
    image: UInt8[np.ndarray, "H W 3"], start: Int[np.ndarray, "2"], stop: Int[np.ndarray, "2"]
) -> UInt8[np.ndarray, "h w 3"]:
    """Cut from pixel `start` to before `stop` (x, y), with the photo's edges repeated beyond it."""
    spans = [
        _span(int(first), int(end), side) for first, end, side in zip(start, stop, image.shape[1::-1], strict=True)
    ]
    (columns, across), (rows, down) = spans
    inside = image[rows, columns]
    return np.pad(inside, (down, across, (0, 0)), "edge") if any(down + across) else inside


def _span(start: int, stop: int, side: int) -> tuple[slice, tuple[int, int]]:
    """Return what of a span lies within [0, side), one pixel at least, and how many pixels miss before and after it."""
    within = slice(min(max(start, 0), side - 1), max(min(stop, side), 1))
    before = min(max(-start, 0), stop - start - 1)
    return within, (before, stop - start - before - (within.stop - within.start))
