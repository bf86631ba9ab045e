"""Where on the face a network errs: each vertex's mean error as a color on the mean face."""

from collections.abc import Mapping
from pathlib import Path

import torch
from jaxtyping import Float
from matplotlib import colormaps
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.cm import ScalarMappable
from matplotlib.colors import BoundaryNorm
from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator
from torch import Tensor

from leanface.face.camera import camera_from_model
from leanface.face.morphable_model import MorphableModel
from leanface.face.render import Renderer
from leanface.report.sheet import save_figure

SIZE_PX = 320
VIEWS = ((0.0, 0.0), (0.7, 0.35))
"""Yaw (rad) and sideways shift (dm) of each picture."""

_STEP_BACK_DM = 1.0

_COLORS = colormaps["RdYlBu_r"]
_BANDS = 10
"""At most so many colors: an eye tells bands apart on a shaded face, but not the shades of a continuous scale."""

_SHOWN = 0.95
"""Share of the face's vertices whose errors the scale spans; the few beyond share its last color."""

_BEYOND = 0.82
"""Gray of what is not the face region."""


def save_heatmaps(model: MorphableModel, errors_mm: Mapping[str, Float[Tensor, " vertices"]], path: Path) -> None:
    """Write a PNG: the mean face, seen from the views, for each named field; one color scale for all.

    Args:
        errors_mm: per vertex; only the face region's are shown.
    """
    face = model.face_mask
    largest = max(float(field[face].quantile(_SHOWN)) for field in errors_mm.values())
    bounds = MaxNLocator(_BANDS, steps=[1, 2, 5, 10]).tick_values(0.0, largest or 1.0)
    scale = BoundaryNorm(bounds, _COLORS.N, extend="max")
    figure = Figure(figsize=(4.2 * len(errors_mm) + 0.8, 2.9), dpi=130, facecolor="white", layout="constrained")
    FigureCanvasAgg(figure)
    panels = figure.subplots(1, len(errors_mm), squeeze=False)[0]
    for axes, (name, field) in zip(panels, errors_mm.items(), strict=True):
        axes.imshow(torch.cat(_views(model, field, scale), 1).clamp(0, 1).numpy())
        axes.set_axis_off()
        axes.set_title(f"{name}: {float(field[face].mean()):.2f} mm on average", fontsize=11)
    figure.colorbar(ScalarMappable(scale, _COLORS), ax=list(panels), label="mm", shrink=0.85)
    save_figure(figure, path)


def _views(model: MorphableModel, field: Tensor, scale: BoundaryNorm) -> list[Float[Tensor, "H W 3"]]:
    colors = torch.from_numpy(_COLORS(scale(field.numpy()))[:, :3]).float()
    colors[~model.face_mask] = _BEYOND
    renderer = Renderer(model, SIZE_PX, supersample=2)
    pictures: list[Tensor] = []
    for yaw_rad, shift_dm in VIEWS:
        pose, place = torch.tensor([[0.0, yaw_rad, 0.0]]), torch.tensor([[shift_dm, 0.0, -_STEP_BACK_DM]])
        vertices = camera_from_model(model.mean_vertices[None], pose, place)
        # Shade a little, so that the face's form is seen, but colors can still be read off the scale.
        light = 0.8 + 0.2 * renderer.normals(vertices, model.triangles)[..., 2:].clamp_min(0)
        drawn = renderer.draw(vertices, (colors * light).contiguous(), model.triangles)
        pictures.append((drawn.image + 1 - drawn.alpha)[0].permute(1, 2, 0))
    return pictures
