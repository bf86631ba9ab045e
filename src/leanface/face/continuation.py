"""Carries values that are known on a part of a mesh on over the rest of it: a screened Poisson equation.

The equation is solved by conjugate gradients. Each step is corrected on three levels: for each vertex, for clusters of
about ten vertices, and for groups of about ten clusters, whose few equations are solved at once.

Source: Bramble, Pasciak and Xu, "Parallel Multilevel Preconditioners", Math. Comp. 55, 1990.
"""

from typing import Any, NamedTuple, Self

import numpy as np
from jaxtyping import Float, Float32, Int

from leanface.face.compiled import compiled

RESIDUAL, STEPS_MAX = 1.5e-2, 100
"""When it is solved for: the remaining error is of a gray level or two, where no photo shows any better."""


class Graph(NamedTuple):
    """Neighbors by rows: those of vertex i are neighbors[starts[i] : starts[i + 1]]."""

    starts: Int[np.ndarray, " vertices+1"]
    neighbors: Int[np.ndarray, " entries"]

    @classmethod
    def of(cls, pairs: Int[np.ndarray, "pairs 2"], count: int) -> Self:
        """Connect pairs of `count` vertices, which may repeat."""
        # Numbers below 2^31, sorted: ten times as fast as `np.unique` along an axis.
        both = np.concatenate([pairs, pairs[:, ::-1]]).astype(np.int64)
        keys = np.unique(both[:, 0] << 32 | both[:, 1])
        starts = np.searchsorted(keys >> 32, np.arange(count + 1))
        return cls(starts.astype(np.int32), (keys & 0xFFFFFFFF).astype(np.int32))

    @classmethod
    def of_triangles(cls, triangles: Int[np.ndarray, "triangles 3"], count: int) -> Self:
        """Connect the corners of triangles."""
        return cls.of(np.stack([triangles, triangles[:, [1, 2, 0]]], axis=-1).reshape(-1, 2), count)

    def means(self, values: Float32[np.ndarray, "vertices channels"]) -> Float32[np.ndarray, "vertices channels"]:
        """Average each vertex's neighbors; 0 without any."""
        means = np.empty_like(values)
        _average(values, *self, means)
        return means


class Continuation:
    """The equation's part that is the same for all values: the mesh, its clusters, and their groups.

    Attributes:
        cluster: of each vertex; `group` is that of each cluster. Clusters are numbered by groups.
        bonds: how strongly each cluster is held by its neighbors; `laplacian` says so of the groups.
    """

    def __init__(self, graph: Graph, smoothness: float) -> None:
        """Gather vertices into clusters and those into groups.

        Args:
            smoothness: of the result, where a known value of weight 1 holds a vertex as strongly as 1.
        """
        self.smoothness = np.float32(smoothness)
        cluster, clusters = _gathered(graph)
        vertex = np.repeat(np.arange(len(graph.starts) - 1), np.diff(graph.starts))
        group, groups = _gathered(Graph.of(np.stack([cluster[vertex], cluster[graph.neighbors]], axis=1), clusters))
        number = np.argsort(np.argsort(group, kind="stable"))
        self.cluster, self.group = number[cluster], np.sort(group)
        bonds = np.stack([self.cluster[vertex], self.cluster[graph.neighbors]], axis=1)
        bonds = bonds[bonds[:, 0] != bonds[:, 1]]
        self.bonds = smoothness * np.bincount(bonds[:, 0], minlength=clusters).astype(np.float32)
        ties = np.bincount(self.group[bonds] @ [groups, 1], minlength=groups * groups).reshape(groups, groups)
        self.laplacian = smoothness * (np.diag(ties.sum(1)) - ties)
        # Vertices of a cluster, and clusters of a group, lie side by side in memory, and one channel after the other.
        self._order = np.argsort(self.cluster, kind="stable")
        place = np.argsort(self._order).astype(np.int32)
        self._graph = Graph.of(np.stack([place[vertex], place[graph.neighbors]], axis=1), len(place))
        self._cluster_starts = _starts(self.cluster, clusters)
        self._group_starts = _starts(self.group, groups)

    def solve(
        self, values: Float[np.ndarray, "vertices 3"], weights: Float[np.ndarray, " vertices"], decay: float
    ) -> Float32[np.ndarray, "vertices 3"]:
        """Continue values by how much they count, 0 to 1; toward 0 by `decay` where they do not."""
        cluster_mass = np.bincount(self.cluster, weights + np.float32(decay))
        cluster_inverse = (1 / (cluster_mass + self.bonds)).astype(np.float32)
        group_inverse = np.linalg.inv(self.laplacian + np.diag(np.bincount(self.group, cluster_mass)))
        levels = self._cluster_starts, cluster_inverse, self._group_starts, group_inverse.astype(np.float32)
        solution = np.empty((len(weights), 3), np.float32)
        _solve(values, weights, np.float32(decay), self._order, *self._graph, self.smoothness, *levels, solution)
        return solution


def _starts(part: Int[np.ndarray, " members"], count: int) -> Int[np.ndarray, " parts+1"]:
    """Return where each part's members begin, in their order, and where the last one's end."""
    return np.cumsum([0, *np.bincount(part, minlength=count)], dtype=np.int32)


def _gathered(graph: Graph) -> tuple[Int[np.ndarray, " vertices"], int]:
    """Give each vertex the number of a cluster: of itself and its neighbors, where it is in no other one."""
    cluster = np.full(len(graph.starts) - 1, -1, np.int32)
    return cluster, _gather(*graph, cluster)


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


@compiled()
def _average(values: Any, starts: Any, neighbors: Any, out: Any) -> None:
    """Fill out (V,C) with the means of the values (V,C) of each vertex's neighbors, 0 without any."""
    for vertex in range(out.shape[0]):
        start, end = starts[vertex], starts[vertex + 1]
        share = np.float32(1) / np.float32(max(end - start, 1))
        for channel in range(out.shape[1]):
            total = np.float32(0)
            for at in range(start, end):
                total += values[np.uint32(neighbors[at]), channel]
            out[vertex, channel] = share * total


@compiled(fastmath={"contract"})
def _correct(
    residual: Any, inverse: Any, cluster_starts: Any, cluster_inverse: Any, group_starts: Any, group_inverse: Any,
    out: Any,
) -> None:  # fmt: skip
    """Fill out (3,V) with what three levels, added up, make of residual (3,V)."""
    clusters, groups = cluster_inverse.shape[0], group_inverse.shape[0]
    by_cluster, of_groups = np.empty((3, clusters), np.float32), np.zeros((3, groups), np.float32)
    for cluster in range(clusters):
        x = y = z = np.float32(0)
        for vertex in range(cluster_starts[cluster], cluster_starts[cluster + 1]):
            i = np.uint32(vertex)
            x += residual[0, i]
            y += residual[1, i]
            z += residual[2, i]
        by_cluster[0, cluster], by_cluster[1, cluster], by_cluster[2, cluster] = x, y, z
    for k in range(3):
        for group in range(groups):
            total = np.float32(0)
            for cluster in range(group_starts[group], group_starts[group + 1]):
                total += by_cluster[k, cluster]
            for other in range(groups):
                of_groups[k, other] += group_inverse[group, other] * total
        for group in range(groups):
            for cluster in range(group_starts[group], group_starts[group + 1]):
                by_cluster[k, cluster] = by_cluster[k, cluster] * cluster_inverse[cluster] + of_groups[k, group]
    for cluster in range(clusters):
        x, y, z = by_cluster[0, cluster], by_cluster[1, cluster], by_cluster[2, cluster]
        for vertex in range(cluster_starts[cluster], cluster_starts[cluster + 1]):
            i = np.uint32(vertex)
            out[0, i] = x
            out[1, i] = y
            out[2, i] = z
    for k in range(3):
        for vertex in range(residual.shape[1]):
            out[k, vertex] += residual[k, vertex] * inverse[vertex]


@compiled(fastmath={"contract"})
def _multiply(values: Any, starts: Any, neighbors: Any, smoothness: Any, inverse: Any, out: Any) -> None:
    """Fill out (3,V) with (mass + smoothness Laplacian) times values (3,V); inverse (V,) is that of its diagonal."""
    for vertex in range(inverse.shape[0]):
        i = np.uint32(vertex)
        x = y = z = np.float32(0)
        for at in range(starts[i], starts[i + np.uint32(1)]):
            other = np.uint32(neighbors[np.uint32(at)])
            x += values[0, other]
            y += values[1, other]
            z += values[2, other]
        diagonal = np.float32(1) / inverse[i]
        out[0, i] = values[0, i] * diagonal - smoothness * x
        out[1, i] = values[1, i] * diagonal - smoothness * y
        out[2, i] = values[2, i] * diagonal - smoothness * z


@compiled(fastmath={"contract", "reassoc"})
def _dot(a: Any, b: Any) -> Any:
    total = np.float32(0)
    for i in range(a.shape[0]):
        total += a[i] * b[i]
    return total


@compiled(fastmath={"contract"})
def _solve(
    values: Any,
    weights: Any,
    decay: Any,
    order: Any,
    starts: Any,
    neighbors: Any,
    smoothness: Any,
    cluster_starts: Any,
    cluster_inverse: Any,
    group_starts: Any,
    group_inverse: Any,
    out: Any,
) -> None:
    """Fill out (V,3) with the solution of (weights + decay + smoothness Laplacian) out = weights values.

    `order` has the vertices as all but values (V,3), weights (V,) and out know them.
    """
    count = order.shape[0]
    inverse, goal, before = np.empty(count, np.float32), np.zeros(3, np.float32), np.zeros(3, np.float32)
    residual, corrected = np.empty((3, count), np.float32), np.empty((3, count), np.float32)
    direction, product = np.zeros((3, count), np.float32), np.empty((3, count), np.float32)
    solution = np.zeros((3, count), np.float32)
    for vertex in range(count):
        weight, degree = weights[order[vertex]], np.float32(starts[vertex + 1] - starts[vertex])
        inverse[vertex] = np.float32(1) / (weight + decay + smoothness * degree)
        for k in range(3):
            residual[k, vertex] = weight * values[order[vertex], k]
    for k in range(3):
        goal[k] = np.float32(RESIDUAL * RESIDUAL) * _dot(residual[k], residual[k])
    for _ in range(STEPS_MAX):
        _correct(residual, inverse, cluster_starts, cluster_inverse, group_starts, group_inverse, corrected)
        for k in range(3):
            energy = _dot(residual[k], corrected[k])
            growth = energy / before[k] if before[k] > 0 else np.float32(0)
            before[k] = energy
            for vertex in range(count):
                direction[k, vertex] = corrected[k, vertex] + growth * direction[k, vertex]
        _multiply(direction, starts, neighbors, smoothness, inverse, product)
        done = True
        for k in range(3):
            curvature = _dot(direction[k], product[k])
            step = before[k] / curvature if curvature > 0 else np.float32(0)
            for vertex in range(count):
                solution[k, vertex] += step * direction[k, vertex]
                residual[k, vertex] -= step * product[k, vertex]
            done = done and _dot(residual[k], residual[k]) <= goal[k]
        if done:
            break
    for vertex in range(count):
        for k in range(3):
            out[order[vertex], k] = solution[k, vertex]
