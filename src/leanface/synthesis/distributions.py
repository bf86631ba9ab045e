"""What prepared faces are like, as histograms: pose, light, likeness, expression, framing."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
from jaxtyping import Float
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure

from leanface.face.camera import REFERENCE_SIZE_PX
from leanface.face.coefficients import ALBEDO, ANGLES, EXPRESSION, IDENTITY, LIGHTING
from leanface.face.geometry import BANDS, CONSTANT, LINEAR
from leanface.files import staged_file
from leanface.paths import SPLITS
from leanface.photos.alignment import TEMPLATE_224
from leanface.synthesis.dataset import FaceDataset

FACES_MAX = 5000
"""So many faces of a split show what it is like; reading all of a large one would take long."""

POINTS_MAX = 1000
BINS = 24
COLORS: dict[str, str] = dict(zip(SPLITS, ("#8c959f", "#0969da", "#cf222e"), strict=True))

PANELS: tuple[tuple[str, str] | tuple[str, str, str], ...] = (
    ("yaw_deg", "yaw (degrees)"),
    ("pitch_deg", "pitch (degrees)"),
    ("roll_deg", "roll (degrees)"),
    ("shift_px", "face: pixels of 224 to the right", "pixels down"),
    ("irradiance", "mean irradiance (1: colors as they are)"),
    ("lamp", "main light (share of the mean)"),
    ("warmth", "red over blue light"),
    ("lamp_direction_deg", "main light: degrees to the right", "degrees up"),
    ("identity", "identity (RMS of coefficients, sigma)"),
    ("expression", "expression (RMS of coefficients, sigma)"),
    ("albedo", "skin (RMS of coefficients, sigma)"),
    ("scale", "size of the face (1: as aligned)"),
)
"""What `describe` calls it, and one axis label for a histogram, two for a scatter plot."""


def plot_distributions(splits: Mapping[str, FaceDataset], path: Path) -> None:
    """Draw the distributions of every split, on top of each other, to a PNG."""
    described = {name: describe(split) for name, split in splits.items()}
    figure = Figure(figsize=(15, 9), dpi=90, layout="constrained", facecolor="white")
    FigureCanvasAgg(figure)
    for axes, (key, *labels) in zip(figure.subplots(3, 4).flat, PANELS, strict=True):
        draw = _histogram if len(labels) == 1 else _scatter
        draw(axes, {name: values[key] for name, values in described.items()}, labels)
    handles, names = figure.axes[0].get_legend_handles_labels()
    titles = [f"{name} ({len(splits[name])} faces)" for name in names]
    figure.legend(handles, titles, loc="outside upper center", ncols=len(titles), frameon=False)
    with staged_file(path) as staging:
        figure.savefig(staging, metadata={"Software": None})


def describe(faces: FaceDataset) -> dict[str, Float[np.ndarray, " count *axes"]]:
    """Return the quantities that are plotted, of the first `FACES_MAX` faces."""
    assert faces.coefficients is not None  # photos have none
    assert faces.landmarks is not None
    coefficients = np.asarray(faces.coefficients[:FACES_MAX], np.float64)
    landmarks = np.asarray(faces.landmarks[:FACES_MAX], np.float64)
    pitch, yaw, roll = np.degrees(coefficients[:, ANGLES]).T
    bands = coefficients[:, LIGHTING].reshape(-1, BANDS, 3)
    irradiance = CONSTANT * bands[:, 0]
    # The linear bands are -y, z and -x (see leanface.face.lighting.sh_basis): together the main light's direction.
    x, y, z = LINEAR * bands[:, [3, 1, 2]].mean(-1).T * np.array([[-1], [-1], [1]])
    scale, shift_px = _framing(landmarks, faces.image_size)
    return {
        "yaw_deg": yaw,
        "pitch_deg": pitch,
        "roll_deg": roll,
        "irradiance": irradiance.mean(-1),
        "lamp": np.sqrt(x * x + y * y + z * z) / irradiance.mean(-1),
        "lamp_direction_deg": np.degrees(np.stack([np.arctan2(x, z), np.arctan2(y, np.hypot(x, z))], 1)),
        "warmth": irradiance[:, 0] / irradiance[:, 2],
        "identity": _rms(coefficients[:, IDENTITY]),
        "expression": _rms(coefficients[:, EXPRESSION]),
        "albedo": _rms(coefficients[:, ALBEDO]),
        "scale": scale,
        "shift_px": shift_px,
    }


def _rms(values: Float[np.ndarray, "count components"]) -> Float[np.ndarray, " count"]:
    return np.sqrt((values**2).mean(axis=1))


def _framing(
    landmarks: Float[np.ndarray, "count 5 2"], size: int
) -> tuple[Float[np.ndarray, " count"], Float[np.ndarray, "count 2"]]:
    """Size and place of the landmarks, by least squares, compared with where alignment puts them."""
    seen = (landmarks + 0.5) * (REFERENCE_SIZE_PX / size) - 0.5
    center, template_center = seen.mean(1), TEMPLATE_224.mean(0)
    spread, template = seen - center[:, None], TEMPLATE_224 - template_center
    return (spread**2).sum((1, 2)) / (spread * template).sum((1, 2)), center - template_center


def _histogram(axes: Any, values: dict[str, Float[np.ndarray, " count"]], labels: list[str]) -> None:
    low, high = np.quantile(np.concatenate(list(values.values())), (0.001, 0.999)).tolist()
    for name, sample in values.items():
        style = {"histtype": "stepfilled", "alpha": 0.5} if name == SPLITS[0] else {"histtype": "step"}
        style |= {"color": COLORS[name], "label": name}
        axes.hist(sample.clip(low, high), BINS, range=(low, high), density=True, **style)
    axes.set_xlabel(labels[0])
    axes.set_yticks([])
    axes.spines[["top", "right", "left"]].set_visible(False)


def _scatter(axes: Any, values: dict[str, Float[np.ndarray, "count 2"]], labels: list[str]) -> None:
    for name, points in values.items():
        axes.scatter(*points[:POINTS_MAX].T, s=5, color=COLORS[name], alpha=0.6, linewidths=0)
    axes.set(xlabel=labels[0], ylabel=labels[1])
    axes.grid(alpha=0.25)
    axes.spines[["top", "right"]].set_visible(False)
