"""A texture of the whole head from one photo: what the photo shows, and the model's own colors where it does not.

Each texel takes the photo's color at the place where its point of the surface is seen. A weight per vertex says how
well the photo shows it: 0 where something hides it, where it turns away or leaves the photo, and rising smoothly from
there, so that there is no seam. The rest takes the model's albedo under the estimated light, multiplied by the ratio of
photo to model, which is carried on over the surface from where it is known (a screened Poisson equation on the mesh).
"""

import itertools
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from typing import Any, NamedTuple, Self

import numpy as np
from jaxtyping import Float, Float32, Int, UInt8
from PIL import Image

from leanface.device import usable_cores
from leanface.errors import ConfigError
from leanface.face import kernels
from leanface.face.compiled import compiled
from leanface.face.geometry import DISTANCE_M
from leanface.face.uv_layout import UvLayout, bilinear, spread

SIZE_MAX_PX = 4096
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

SMOOTHNESS, DECAY = 2.0, 0.004
"""Of the ratio of photo to model: how far it is averaged, and how fast it goes to its mean where nothing is known."""

RESIDUAL, STEPS_MAX = 3e-3, 300
"""When that ratio is solved for: the remaining error is of a gray level or two, where no photo shows any better."""

CLUSTER_STIFFNESS = 0.3
"""How much weaker the bonds between clusters are than the sum of their vertices': within clusters nothing gives way.
Measured: with it the solution on clusters is the nearest to the vertices' own."""

RATIO_LOG_MAX = 0.7
"""The photo may be twice as bright as the model, or half: beyond that it shows something that is not the head."""

DARK = 0.05
"""Added to both colors before their ratio is taken: dark ones say little."""

SAMPLED = 4
"""Of the triangles, one in so many is enough to tell how much finer the photo is than the texture."""

LIGHT_STEPS = 12
"""Rings of vertices over which the light is averaged before it is taken out."""

LIGHT_MIN = 0.4
"""Taking the light out multiplies a color by at most the inverse of this."""


@dataclass(frozen=True)
class Lighting:
    """Colors (V,3) of the model at each vertex: albedo in [0,1], and the light that falls on it."""

    albedo: Float[np.ndarray, "vertices 3"]
    irradiance: Float[np.ndarray, "vertices 3"]


class _Graph(NamedTuple):
    """Neighbors by rows: those of vertex i are neighbors[starts[i] : starts[i + 1]], each with a strength."""

    starts: Int[np.ndarray, " vertices+1"]
    neighbors: Int[np.ndarray, " entries"]
    strengths: Float32[np.ndarray, " entries"]

    @classmethod
    def of(cls, edges: Int[np.ndarray, "entries 2"], strengths: Float[np.ndarray, " entries"], count: int) -> Self:
        """Build it from edges in both directions, sorted."""
        starts = np.searchsorted(edges[:, 0], np.arange(count + 1))
        neighbors = np.ascontiguousarray(edges[:, 1], np.int32)
        return cls(starts.astype(np.int32), neighbors, strengths.astype(np.float32))


class PhotoTexture:
    """Takes textures from photos of one model's heads. Any threads may share it."""

    def __init__(self, triangles: Int[np.ndarray, "triangles 3"], count: int) -> None:
        """Find each of `count` vertices' neighbors, and clusters of about ten that solve for the whole head at once."""
        self._triangles = triangles
        following = triangles[:, [1, 2, 0]]
        pairs = np.stack([np.concatenate([triangles, following]), np.concatenate([following, triangles])], -1)
        edges, _ = _unique_pairs(pairs.reshape(-1, 2))
        self._graph = _Graph.of(edges, np.full(len(edges), SMOOTHNESS), count)
        self._cluster = np.full(count, -1, np.int32)
        clusters = _gather(self._graph.starts, self._graph.neighbors, self._cluster)
        between = self._cluster[edges]
        bonds, bond_counts = _unique_pairs(between[between[:, 0] != between[:, 1]])
        self._clusters = _Graph.of(bonds, CLUSTER_STIFFNESS * SMOOTHNESS * bond_counts, clusters)

    def paint(
        self,
        layout: UvLayout,
        photo: UInt8[np.ndarray, "H W 3"],
        vertices_photo: Float[np.ndarray, "vertices 3"],
        vertices_camera: Float[np.ndarray, "vertices 3"],
        normals_camera: Float[np.ndarray, "vertices 3"],
        lighting: Lighting,
        *,
        delight: bool = False,
    ) -> UInt8[np.ndarray, "size size 3"]:
        """Paint the texture, filled everywhere.

        Args:
            layout: the texture's.
            vertices_photo: x and y (px) in the photo, and 1 / depth (1/m).
            vertices_camera: in the camera's frame (m).
            normals_camera: unit normals in the camera's frame.
            lighting: the model's colors, for what the photo does not show.
            delight: divide the light out.

        Raises:
            ConfigError: the size is above SIZE_MAX_PX.
        """
        if layout.size > SIZE_MAX_PX:
            raise ConfigError(f"a texture has at most {SIZE_MAX_PX} x {SIZE_MAX_PX} pixels, got {layout.size}.")
        weights = self.weights(photo.shape[:2], vertices_photo, vertices_camera, normals_camera)
        factor = _reduction(layout, vertices_photo, weights)
        if factor > 1:
            photo = np.asarray(Image.fromarray(photo).reduce(factor))
        at = (vertices_photo[:, :2] + 0.5) / factor - 0.5
        fill = self._fill(bilinear(photo, at) / 255, weights, lighting)
        parts = [at, weights[:, None], 255 * fill]
        if delight:
            parts.append(1 / np.maximum(self._smooth(lighting.irradiance), LIGHT_MIN))
        attributes = np.concatenate(parts, 1, dtype=np.float32)[layout.vertex]
        texture = np.zeros((layout.size, layout.size, 3), np.uint8)
        covered = np.zeros((layout.size, layout.size), np.bool_)
        photo = np.ascontiguousarray(photo)

        def band(rows: tuple[int, int]) -> None:
            _paint(layout.pixel, layout.back_to_front, attributes, photo, rows[0], rows[1], texture, covered)

        workers = usable_cores()
        edges = np.linspace(0, layout.size, 4 * workers + 1).astype(int).tolist()
        with ThreadPoolExecutor(workers) as threads:
            list(threads.map(band, itertools.pairwise(edges)))
        return spread(texture, covered)

    def weights(
        self,
        photo_shape: tuple[int, ...],
        vertices_photo: Float[np.ndarray, "vertices 3"],
        vertices_camera: Float[np.ndarray, "vertices 3"],
        normals_camera: Float[np.ndarray, "vertices 3"],
    ) -> Float[np.ndarray, " vertices"]:
        """Rate how well the photo shows each vertex, in [0,1]."""
        sight = np.array([0, 0, DISTANCE_M], np.float32) - vertices_camera
        cosine = (sight * normals_camera).sum(1) / np.linalg.norm(sight, axis=1)
        weights = _smoothstep((cosine - TURNED_AWAY) / (FACING - TURNED_AWAY))
        height, width = photo_shape[:2]
        xy = vertices_photo[:, :2]
        inside = np.minimum(xy + 0.5, (width, height) - xy - 0.5).min(1)
        weights *= _smoothstep(inside / (RIM * np.ptp(xy, axis=0).max()))
        weights = (weights * self._seen(vertices_photo)).astype(np.float32)
        for _ in range(FEATHER_STEPS):
            weights = np.minimum(weights, self._mean_of_neighbors(weights[:, None])[:, 0])
        return weights

    def _smooth(self, values: Float[np.ndarray, "vertices 3"]) -> Float[np.ndarray, "vertices 3"]:
        """Average out what folds of the mesh add: they never lie just where the photo's do."""
        for _ in range(LIGHT_STEPS):
            values = self._mean_of_neighbors(values)
        return values

    def _mean_of_neighbors(self, values: Float32[np.ndarray, "vertices channels"]) -> np.ndarray:
        means = np.empty_like(values)
        _average(values, self._graph.starts, self._graph.neighbors, means)
        return means

    def _seen(self, vertices_photo: Float[np.ndarray, "vertices 3"]) -> np.ndarray:
        """Find the vertices that nothing lies in front of."""
        low = vertices_photo[:, :2].min(0)
        scale = (DEPTH_MAP_PX - 1) / np.ptp(vertices_photo[:, :2], axis=0).max()
        fitted = np.concatenate([(vertices_photo[:, :2] - low) * scale, vertices_photo[:, 2:]], 1, dtype=np.float32)
        nearness = kernels.inverse_depth(fitted, self._triangles, DEPTH_MAP_PX)
        column, row = np.rint(fitted[:, :2]).astype(int).clip(0, DEPTH_MAP_PX - 1).T
        nearest = np.maximum(nearness[row, column], 1e-6)
        return 1 / fitted[:, 2] <= 1 / nearest + DEPTH_TOLERANCE_M

    def _fill(
        self, seen: Float[np.ndarray, "vertices 3"], weights: Float[np.ndarray, " vertices"], lighting: Lighting
    ) -> Float[np.ndarray, "vertices 3"]:
        """Adapt the model's lit colors, in [0,1], so that they continue the photo's `seen` ones."""
        lit = np.clip(lighting.albedo * lighting.irradiance, 0, 1)
        if weights.max() == 0:
            return lit
        ratio = np.log((seen + DARK) / (lit + DARK)).clip(-RATIO_LOG_MAX, RATIO_LOG_MAX)
        mean = np.average(ratio, axis=0, weights=weights)
        mass = weights + np.float32(DECAY)
        coarse_mass = np.bincount(self._cluster, mass).astype(np.float32)
        right = np.ascontiguousarray(weights[:, None] * (ratio - mean), np.float32)
        # First for clusters, where few steps lead far, then for each vertex.
        coarse_right = [np.bincount(self._cluster, column).astype(np.float32) for column in right.T]
        coarse = np.zeros((len(coarse_mass), 3), np.float32)
        _solve(coarse_mass, *self._clusters, np.stack(coarse_right, axis=1), coarse)
        carried = coarse[self._cluster]
        _solve(mass, *self._graph, right, carried)
        return np.clip(lit * np.exp(carried + mean), 0, 1)


def _unique_pairs(
    pairs: Int[np.ndarray, "pairs 2"],
) -> tuple[Int[np.ndarray, "unique 2"], Int[np.ndarray, " unique"]]:
    """Sort pairs of numbers below 2^31 and count equal ones: ten times as fast as `np.unique` along an axis."""
    keys, counts = np.unique(pairs[:, 0].astype(np.int64) << 32 | pairs[:, 1], return_counts=True)
    return np.stack([keys >> 32, keys & 0xFFFFFFFF], axis=1), counts


def _reduction(
    layout: UvLayout, vertices_photo: Float[np.ndarray, "vertices 3"], weights: Float[np.ndarray, " vertices"]
) -> int:
    """Estimate the photo's pixels per texel, in each direction, where the photo is finer than the texture; else 1."""
    some = layout.triangles[::SAMPLED]
    shown = some[weights[layout.vertex[some]].min(1) > 0]
    if not len(shown):
        return 1
    photo_area = _areas(vertices_photo[layout.vertex[shown], :2])
    texture_area = np.maximum(_areas(layout.pixel[shown]), 1e-6)
    return max(1, round(float(np.sqrt(np.median(photo_area / texture_area)))))


def _smoothstep(x: np.ndarray) -> np.ndarray:
    x = np.clip(x, 0, 1)
    return x * x * (3 - 2 * x)


def _areas(corners: Float[np.ndarray, "triangles 3 2"]) -> Float[np.ndarray, " triangles"]:
    first, second = corners[:, 1] - corners[:, 0], corners[:, 2] - corners[:, 0]
    return np.abs(first[:, 0] * second[:, 1] - first[:, 1] * second[:, 0]) / 2


@compiled()
def _average(values: Any, starts: Any, neighbors: Any, out: Any) -> None:
    """Fill out (V,C) with the means of the values (V,C) of each vertex's neighbors, 0 without any."""
    for vertex in range(out.shape[0]):
        start, end = starts[vertex], starts[vertex + 1]
        share = np.float32(1) / np.float32(max(end - start, 1))
        for channel in range(out.shape[1]):
            total = np.float32(0)
            for at in range(start, end):
                total += values[neighbors[at], channel]
            out[vertex, channel] = share * total


@compiled()
def _gather(starts: Any, neighbors: Any, cluster: Any) -> int:
    """Fill cluster (V,), -1 at first, with the number of each vertex's cluster; return how many there are."""
    count = 0
    for vertex in range(cluster.shape[0]):
        free = cluster[vertex] < 0
        for at in range(starts[vertex], starts[vertex + 1]):
            free = free and cluster[neighbors[at]] < 0
        if free:
            cluster[vertex] = count
            for at in range(starts[vertex], starts[vertex + 1]):
                cluster[neighbors[at]] = count
            count += 1
    for vertex in range(cluster.shape[0]):  # what lies between clusters joins one
        for at in range(starts[vertex], starts[vertex + 1]):
            if cluster[vertex] < 0:
                cluster[vertex] = cluster[neighbors[at]]
    return count


@compiled(fastmath={"contract"})
def _solve(mass: Any, starts: Any, neighbors: Any, strengths: Any, right: Any, solution: Any) -> None:
    """Solve (mass + Laplacian of the graph) solution = right, three columns (V,3), from what is in `solution`.

    By conjugate gradients, with the matrix's diagonal as preconditioner.
    """
    count = mass.shape[0]
    diagonal = np.empty(count, np.float32)
    residual = np.empty((count, 3), np.float32)
    direction = np.empty((count, 3), np.float32)
    product = np.empty((count, 3), np.float32)
    energy, goal, curvature = np.zeros(3, np.float32), np.zeros(3, np.float32), np.zeros(3, np.float32)
    left, new_energy = np.zeros(3, np.float32), np.zeros(3, np.float32)
    for row in range(count):
        total = mass[row]
        x = y = z = np.float32(0)
        for at in range(starts[row], starts[row + 1]):
            strength, other = strengths[at], np.uint32(neighbors[at])
            total += strength
            x += strength * solution[other, 0]
            y += strength * solution[other, 1]
            z += strength * solution[other, 2]
        diagonal[row] = total
        for k, around in enumerate((x, y, z)):
            residual[row, k] = right[row, k] - total * solution[row, k] + around
            direction[row, k] = residual[row, k] / total
            energy[k] += residual[row, k] * direction[row, k]
            goal[k] += np.float32(RESIDUAL * RESIDUAL) * right[row, k] * right[row, k]
    for _ in range(STEPS_MAX):
        for k in range(3):
            curvature[k] = left[k] = new_energy[k] = 0
        for row in range(count):
            x = y = z = np.float32(0)
            for at in range(starts[row], starts[row + 1]):
                strength, other = strengths[at], np.uint32(neighbors[at])
                x += strength * direction[other, 0]
                y += strength * direction[other, 1]
                z += strength * direction[other, 2]
            for k, around in enumerate((x, y, z)):
                product[row, k] = diagonal[row] * direction[row, k] - around
                curvature[k] += direction[row, k] * product[row, k]
        for row in range(count):
            inverse = np.float32(1) / diagonal[row]
            for k in range(3):
                step = energy[k] / curvature[k] if curvature[k] > 0 else np.float32(0)
                solution[row, k] += step * direction[row, k]
                residual[row, k] -= step * product[row, k]
                squared = residual[row, k] * residual[row, k]
                left[k] += squared
                new_energy[k] += squared * inverse
        if left[0] <= goal[0] and left[1] <= goal[1] and left[2] <= goal[2]:
            return
        for row in range(count):
            inverse = np.float32(1) / diagonal[row]
            for k in range(3):
                growth = new_energy[k] / energy[k] if energy[k] > 0 else np.float32(0)
                direction[row, k] = residual[row, k] * inverse + growth * direction[row, k]
        for k in range(3):
            energy[k] = new_energy[k]


@compiled(fastmath={"contract"})
def _paint(
    pixel: Any, triangles: Any, attributes: Any, photo: Any, first_row: int, end_row: int, texture: Any, covered: Any
) -> None:
    """Paint rows first_row to end_row of texture (S,S,3) uint8, and mark the texels that the surface covers.

    pixel (C,2) says where the map's vertices lie; attributes (C,6 or 9) are the photo's x and y, the photo's weight,
    the color to fill with (0 to 255), and perhaps a gain that the result is multiplied by. All are linear within a
    triangle: triangles are too small for perspective to show.
    """
    size, count = texture.shape[1], attributes.shape[1]
    last_x, last_y = np.float32(photo.shape[1] - 1), np.float32(photo.shape[0] - 1)
    right_most, bottom_most = photo.shape[1] - 1, photo.shape[0] - 1
    zero, one = np.float32(0), np.float32(1)
    gradient_x = np.empty(9, np.float32)
    gradient_y = np.empty(9, np.float32)
    start = np.empty(9, np.float32)
    for index in range(triangles.shape[0]):
        a, b, c = triangles[index, 0], triangles[index, 1], triangles[index, 2]
        y0, y1, y2 = pixel[a, 1], pixel[b, 1], pixel[c, 1]
        top = max(int(np.ceil(min(y0, y1, y2))), first_row)
        bottom = min(int(np.floor(max(y0, y1, y2))), end_row - 1)
        if top > bottom:
            continue
        x0, x1, x2 = pixel[a, 0], pixel[b, 0], pixel[c, 0]
        left = max(int(np.ceil(min(x0, x1, x2))), 0)
        right = min(int(np.floor(max(x0, x1, x2))), size - 1)
        area = (x1 - x0) * (y2 - y0) - (x2 - x0) * (y1 - y0)
        if left > right or area >= -np.float32(1e-9):
            continue
        inverse = one / area
        second_x, second_y = (y2 - y0) * inverse, -(x2 - x0) * inverse
        third_x, third_y = -(y1 - y0) * inverse, (x1 - x0) * inverse
        for k in range(count):
            to_b, to_c = attributes[b, k] - attributes[a, k], attributes[c, k] - attributes[a, k]
            gradient_x[k] = to_b * second_x + to_c * third_x
            gradient_y[k] = to_b * second_y + to_c * third_y
            start[k] = attributes[a, k]
        shown = max(attributes[a, 2], attributes[b, 2], attributes[c, 2]) > zero
        for row in range(top, bottom + 1):
            y = np.float32(row) - y0
            for column in range(left, right + 1):
                x = np.float32(column) - x0
                second = x * second_x + y * second_y
                third = x * third_x + y * third_y
                if second < zero or third < zero or second + third > one:
                    continue
                red = start[3] + x * gradient_x[3] + y * gradient_y[3]
                green = start[4] + x * gradient_x[4] + y * gradient_y[4]
                blue = start[5] + x * gradient_x[5] + y * gradient_y[5]
                if shown:
                    weight = min(max(start[2] + x * gradient_x[2] + y * gradient_y[2], zero), one)
                    px = min(max(start[0] + x * gradient_x[0] + y * gradient_y[0], zero), last_x)
                    py = min(max(start[1] + x * gradient_x[1] + y * gradient_y[1], zero), last_y)
                    i, j = np.uint32(py), np.uint32(px)
                    i2, j2 = np.uint32(min(i + 1, bottom_most)), np.uint32(min(j + 1, right_most))
                    v, u = py - np.float32(i), px - np.float32(j)
                    w00, w01 = (one - v) * (one - u) * weight, (one - v) * u * weight
                    w10, w11 = v * (one - u) * weight, v * u * weight
                    rest = one - weight
                    red = rest * red + (
                        w00 * photo[i, j, 0] + w01 * photo[i, j2, 0] + w10 * photo[i2, j, 0] + w11 * photo[i2, j2, 0]
                    )
                    green = rest * green + (
                        w00 * photo[i, j, 1] + w01 * photo[i, j2, 1] + w10 * photo[i2, j, 1] + w11 * photo[i2, j2, 1]
                    )
                    blue = rest * blue + (
                        w00 * photo[i, j, 2] + w01 * photo[i, j2, 2] + w10 * photo[i2, j, 2] + w11 * photo[i2, j2, 2]
                    )
                if count == 9:
                    red *= start[6] + x * gradient_x[6] + y * gradient_y[6]
                    green *= start[7] + x * gradient_x[7] + y * gradient_y[7]
                    blue *= start[8] + x * gradient_x[8] + y * gradient_y[8]
                r, at = np.uint32(row), np.uint32(column)
                texture[r, at, 0] = np.uint8(min(max(red, zero), np.float32(255)) + np.float32(0.5))
                texture[r, at, 1] = np.uint8(min(max(green, zero), np.float32(255)) + np.float32(0.5))
                texture[r, at, 2] = np.uint8(min(max(blue, zero), np.float32(255)) + np.float32(0.5))
                covered[r, at] = True
