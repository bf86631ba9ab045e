"""How well a photo shows each vertex of a head.

Not at all where something hides it, where it turns away or leaves the photo, and better smoothly from there, so that no
seam shows. What lies just within the outline does not count either: the shape is a few millimeters off, and the photo
may show the background there.
"""

from typing import Any

import numpy as np
from jaxtyping import Bool, Float, Float32, Int

from leanface.face import kernels
from leanface.face.compiled import compiled
from leanface.face.continuation import Graph
from leanface.face.geometry import DISTANCE_M

DEPTH_MAP_PX = 512
"""Side of the depth map over the whole head by which hidden vertices are found."""

DEPTH_TOLERANCE_M = 0.004
"""How much deeper than the depth map a vertex may lie and still count as seen."""

TURNED_AWAY, FACING = 0.2, 0.55
"""Cosine between normal and line of sight at which the photo counts for nothing, and for all."""

FEATHER_STEPS = 4
"""Rings of vertices over which the photo fades out where it ends."""

RIM = 0.03
"""Share of the head's size over which the photo fades out towards its own edges."""

OUTLINE, WITHIN = 0.008, 0.032
"""Distance from the head's outline, as a share of its size, at which the photo counts for nothing, and for all."""


BLOCK_PX = 8
"""Side of the blocks of the depth map; what lies behind or beside something is told by them."""

LIP_STEPS = 2
"""Rings of vertices around an opening that turn into it, and are seen with what lies in it."""

OVERHANG_M = 0.02
"""How much nearer than a vertex something may be that lies a block away: beneath jaw and nose, a photo that is a few
millimeters off shows jaw and nose."""


class Visibility:
    """Rates vertices of one mesh. Any threads may share it.

    Attributes:
        openings: the vertices of eyes, teeth, the insides of mouth and lids, and the rims around them. Where anything
            of these is seen, the photo shows all that lies there: the teeth of a smile, however the lips fit it.
    """

    openings: Bool[np.ndarray, " vertices"]
    opening_triangles: Bool[np.ndarray, " triangles"]
    """Those between such vertices alone, without the rims."""

    graph: Graph
    """Neighbors within the texture's islands."""

    def __init__(
        self,
        triangles: Int[np.ndarray, "triangles 3"],
        graph: Graph,
        without_seams: Int[np.ndarray, "triangles 3"],
        mean_vertices: Float32[np.ndarray, "vertices 3"],
    ) -> None:
        """Prepare for a mesh.

        Args:
            graph: of its neighbors.
            without_seams: its triangles but for those across seams of the texture.
            mean_vertices: of the mean face.
        """
        self.triangles = triangles
        self.graph = Graph.of_triangles(without_seams, len(mean_vertices))
        apart = _apart(self.graph, mean_vertices[:, 2])
        self.opening_triangles = np.logical_and.reduce(apart[triangles], axis=1)
        near = apart[:, None].astype(np.float32)
        for _ in range(LIP_STEPS):
            near = np.maximum(near, graph.means(near))
        self.openings = near[:, 0] > 0

    def weights(
        self,
        photo_shape: tuple[int, ...],
        vertices_photo: Float[np.ndarray, "vertices 3"],
        vertices_camera: Float[np.ndarray, "vertices 3"],
        normals_camera: Float[np.ndarray, "vertices 3"],
    ) -> Float[np.ndarray, " vertices"]:
        """Rate how well the photo shows each vertex, in [0,1].

        Args:
            photo_shape: height and width first.
            vertices_photo: x and y (px) in the photo, and 1 / depth (1/m).
            vertices_camera: in the camera's frame (m).
            normals_camera: unit normals in the camera's frame.
        """
        xy = np.ascontiguousarray(vertices_photo[:, :2].T)
        low = xy.min(1)
        size = (xy.max(1) - low).max()
        scale = (DEPTH_MAP_PX - 1) / size
        fitted = np.concatenate([(vertices_photo[:, :2] - low) * scale, vertices_photo[:, 2:]], 1, dtype=np.float32)
        triangle, nearness = kernels.nearest_triangles(fitted, self.triangles, DEPTH_MAP_PX)
        blocks = np.zeros((2, DEPTH_MAP_PX // BLOCK_PX, DEPTH_MAP_PX // BLOCK_PX), np.float32)
        _summarize(triangle, nearness, self.opening_triangles, blocks)
        within = np.empty((DEPTH_MAP_PX // 2 + 2, DEPTH_MAP_PX // 2 + 2), np.float32)
        _measure(nearness, within)
        weights = np.empty(len(fitted), np.float32)
        photo = np.array([photo_shape[1], photo_shape[0], RIM * size], np.float32)
        views = vertices_photo, vertices_camera, normals_camera
        _rate(fitted, nearness, blocks, within, *views, photo, self.openings, weights)
        feathered = weights
        for _ in range(FEATHER_STEPS):
            feathered, before = np.empty_like(weights), feathered
            _feather(before, *self.graph, feathered)
        return np.where(self.openings, weights, feathered)


def _apart(graph: Graph, z: Float32[np.ndarray, " vertices"]) -> Bool[np.ndarray, " vertices"]:
    """Find what lies in openings of the skin: eyes, teeth, and the insides of the mouth and the lids.

    They are islands of the texture, in front of the head's middle; the neck's lower end is another island.
    """
    island = np.full(len(z), -1, np.int32)
    _number(*graph, island)
    sizes = np.bincount(island)
    in_front = np.bincount(island, z) / sizes > z.mean()
    return in_front[island] & (island != sizes.argmax())


@compiled()
def _number(starts: Any, neighbors: Any, part: Any) -> None:
    """Fill part (V,), -1 at first, with the number of each vertex's connected part of the graph."""
    stack = np.empty(len(part), np.int32)
    count = 0
    for seed in range(len(part)):
        if part[seed] >= 0:
            continue
        part[seed], stack[0], height = count, seed, 1
        while height:
            height -= 1
            vertex = stack[height]
            for at in range(starts[vertex], starts[vertex + 1]):
                other = neighbors[at]
                if part[other] < 0:
                    part[other] = count
                    stack[height] = other
                    height += 1
        count += 1


@compiled()
def _summarize(triangle: Any, nearness: Any, in_opening: Any, blocks: Any) -> None:
    """Fill blocks (2,N,N), 0 at first, with the greatest 1 / depth in each, and with 1 where one shows an opening."""
    for row in range(nearness.shape[0]):
        for column in range(nearness.shape[0]):
            i, j = np.uint32(row // BLOCK_PX), np.uint32(column // BLOCK_PX)
            blocks[0, i, j] = max(blocks[0, i, j], nearness[row, column])
            if triangle[row, column] >= 0 and in_opening[triangle[row, column]]:
                blocks[1, i, j] = 1


@compiled()
def _measure(nearness: Any, within: Any) -> None:
    """Fill within (S/2+2,S/2+2) with the distance of each second pixel of nearness (S,S) from where it is 0, in pixels.

    By two passes that add up steps along rows, columns and diagonals; beyond the map there is nothing, so its rim is 0.
    """
    side = within.shape[0] - 2
    straight, diagonal = np.float32(2), np.float32(2 * np.sqrt(2))
    within[:] = 0
    for i in range(side):
        for j in range(side):
            within[i + 1, j + 1] = np.float32(side) if nearness[2 * i, 2 * j] > 0 else np.float32(0)
    for step in (1, -1):
        for i in range(side):
            row = i + 1 if step > 0 else side - i
            before, here = within[row - step], within[row]
            for column in range(1, side + 1):
                across = _lesser(before[column - 1], before[column + 1]) + diagonal
                here[column] = _lesser(here[column], _lesser(before[column] + straight, across))
            for j in range(side):
                column = j + 1 if step > 0 else side - j
                here[column] = _lesser(here[column], here[column - step] + straight)


@compiled(inline="always")
def _lesser(a: Any, b: Any) -> Any:
    return b if b < a else a


@compiled()
def _feather(weights: Any, starts: Any, neighbors: Any, out: Any) -> None:
    """Fill out (V,) with weights (V,), but at most the mean of the neighbors' ones, or 0 without any."""
    for vertex in range(weights.shape[0]):
        start, end = starts[vertex], starts[vertex + 1]
        total = np.float32(0)
        for at in range(start, end):
            total += weights[np.uint32(neighbors[at])]
        out[vertex] = _lesser(weights[vertex], np.float32(1) / np.float32(max(end - start, 1)) * total)


@compiled(fastmath={"contract"})
def _rate(
    fitted: Any, nearness: Any, blocks: Any, within: Any, seen: Any, camera: Any, normals: Any, photo: Any,
    openings: Any, out: Any,
) -> None:  # fmt: skip
    """Fill out (V,) with how well each vertex is shown, without feathering.

    fitted (V,3) is seen (V,3), px in the photo and 1 / depth, moved to the depth map `nearness` (S,S). photo (3,) is
    the photo's width, height and rim (px). What belongs to openings is shown where one is seen, or a
    block beside it.
    """
    last, size, end = nearness.shape[0] - 1, np.float32(nearness.shape[0]), blocks.shape[1]
    half, one = np.float32(0.5), np.float32(1)
    tolerance, distance = np.float32(DEPTH_TOLERANCE_M), np.float32(DISTANCE_M)
    for vertex in range(out.shape[0]):
        out[vertex] = 0
        row = min(max(int(np.rint(fitted[vertex, 1])), 0), last)
        column = min(max(int(np.rint(fitted[vertex, 0])), 0), last)
        nearest, above, opening = nearness[row, column], np.float32(1e-6), False
        for i in range(max(row // BLOCK_PX - 1, 0), min(row // BLOCK_PX + 2, end)):
            for j in range(max(column // BLOCK_PX - 1, 0), min(column // BLOCK_PX + 2, end)):
                above = max(above, blocks[0, i, j])
                opening |= blocks[1, i, j] > 0
        left, top = seen[vertex, 0] + half, seen[vertex, 1] + half
        weight = _smoothstep(min(left, top, photo[0] - left, photo[1] - top) / photo[2])
        if openings[vertex] and opening:
            out[vertex] = weight
            continue
        depth = one / fitted[vertex, 2]
        if depth > one / max(nearest, np.float32(1e-6)) + tolerance or depth > one / above + np.float32(OVERHANG_M):
            continue
        x, y, z = -camera[vertex, 0], -camera[vertex, 1], distance - camera[vertex, 2]
        cosine = x * normals[vertex, 0] + y * normals[vertex, 1] + z * normals[vertex, 2]
        cosine /= np.sqrt(x * x + y * y + z * z)
        weight *= _smoothstep((cosine - np.float32(TURNED_AWAY)) / np.float32(FACING - TURNED_AWAY))
        inward = within[row // 2 + 1, column // 2 + 1] / size
        out[vertex] = weight * _smoothstep((inward - np.float32(OUTLINE)) / np.float32(WITHIN - OUTLINE))


@compiled(inline="always")
def _smoothstep(x: Any) -> Any:
    x = min(max(x, np.float32(0)), np.float32(1))
    return x * x * (np.float32(3) - (x + x))
