"""How alike two pictures are: SSIM and MSE, over a whole picture or over a mask.

Pictures are channel-last floats. `data_range` is the distance between the largest and the smallest possible
value and is always given, never guessed from the pictures: 1.0 for colors in [0,1].

Source: Wang et al., "Image Quality Assessment: From Error Visibility to Structural Similarity", IEEE TIP
2004, in scikit-image's form: uniform 7x7 windows, sample covariance, the channels' values averaged.
"""

from typing import Any

import numpy as np
from jaxtyping import Bool, Float
from scipy import ndimage
from skimage import metrics

# Their own types leave everything open.
_structural_similarity: Any = metrics.structural_similarity  # pyright: ignore[reportUnknownVariableType]
_minimum_filter: Any = ndimage.minimum_filter  # pyright: ignore[reportUnknownVariableType]

WINDOW_PX = 7


def ssim(
    first: Float[np.ndarray, "H W C"],
    second: Float[np.ndarray, "H W C"],
    *,
    data_range: float,
    mask: Bool[np.ndarray, "H W"] | None = None,
) -> float:
    """Compute structural similarity: 1 for equal pictures, about 0 for unrelated ones.

    With a mask: the mean of the SSIM map over the mask's pixels. A window centered near the mask's edge also
    sees what lies beyond it. Without: the mean over every pixel whose window lies inside the picture.

    Raises:
        ValueError: the shapes differ, the picture is smaller than a window, or the mask is empty.
    """
    _require_same_shape(first, second, mask)
    if min(first.shape[:2]) < WINDOW_PX:
        raise ValueError(f"SSIM needs at least {WINDOW_PX}x{WINDOW_PX} pixels, got {first.shape[:2]}")
    # Float64: in float32 the variances' differences of squares lose half their digits in flat regions.
    mean, full = _structural_similarity(
        first.astype(np.float64),
        second.astype(np.float64),
        win_size=WINDOW_PX,
        data_range=data_range,
        channel_axis=-1,
        full=True,
    )
    return float(mean if mask is None else full[mask].mean())


def mse(
    first: Float[np.ndarray, "H W C"],
    second: Float[np.ndarray, "H W C"],
    *,
    mask: Bool[np.ndarray, "H W"] | None = None,
) -> float:
    """Compute the mean squared difference, in the square of the pictures' unit.

    Raises:
        ValueError: the shapes differ, or the mask is empty.
    """
    _require_same_shape(first, second, mask)
    squared = np.square(first.astype(np.float64) - second.astype(np.float64))
    return float((squared if mask is None else squared[mask]).mean())


def whole_windows(mask: Bool[np.ndarray, "H W"]) -> Bool[np.ndarray, "H W"]:
    """Select the mask's pixels whose SSIM window lies inside the mask: for pictures that hold nothing beyond it.

    There the edge of the void, the same in both pictures, would otherwise pass for likeness.
    """
    return _minimum_filter(mask, WINDOW_PX, mode="constant", cval=0)


def _require_same_shape(first: np.ndarray, second: np.ndarray, mask: np.ndarray | None) -> None:
    if first.ndim != 3 or first.shape != second.shape:
        raise ValueError(f"expected two pictures of one shape (H, W, C), got {first.shape} and {second.shape}")
    if mask is None:
        return
    if mask.shape != first.shape[:2] or mask.dtype != np.bool_:
        raise ValueError(f"expected a bool mask of shape {first.shape[:2]}, got {mask.dtype} {mask.shape}")
    if not mask.any():
        raise ValueError("the mask is empty: there is no pixel to compare")
