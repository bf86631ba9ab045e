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
        cluster: of each vertex; `group` is that of each cluster.
        bonds: how strongly each cluster is held by its neighbors; `laplacian` says so of the groups.
    """

    def __init__(self, graph: Graph, smoothness: float) -> None:
        """Gather vertices into clusters and those into groups.

        Args:
            smoothness: of the result, where a known value of weight 1 holds a vertex as strongly as 1.
        """
        self._graph, self.smoothness = graph, np.float32(smoothness)
        self.cluster, clusters = _gathered(graph)
        vertex = np.repeat(np.arange(len(graph.starts) - 1), np.diff(graph.starts))
        bonds = np.stack([self.cluster[vertex], self.cluster[graph.neighbors]], axis=1)
        bonds = bonds[bonds[:, 0] != bonds[:, 1]]
        self.bonds = smoothness * np.bincount(bonds[:, 0], minlength=clusters).astype(np.float32)
        self.group, groups = _gathered(Graph.of(bonds, clusters))
        ties = np.bincount(self.group[bonds] @ [groups, 1], minlength=groups * groups).reshape(groups, groups)
        self.laplacian = smoothness * (np.diag(ties.sum(1)) - ties)

    def solve(
        self, values: Float[np.ndarray, "vertices 3"], weights: Float[np.ndarray, " vertices"], decay: float
    ) -> Float32[np.ndarray, "vertices 3"]:
        """Continue values by how much they count, 0 to 1; toward 0 by `decay` where they do not."""
        mass = (weights + decay).astype(np.float32)
        cluster_mass = np.bincount(self.cluster, mass)
        groups = self.laplacian + np.diag(np.bincount(self.group, cluster_mass))
        right = np.ascontiguousarray(weights[:, None] * values, np.float32)
        cluster_inverse = (1 / (cluster_mass + self.bonds)).astype(np.float32)
        group_inverse = np.linalg.inv(groups).astype(np.float32)
        solution = np.zeros_like(right)
        levels = self.cluster, cluster_inverse, self.group, group_inverse
        _solve(mass, *self._graph, self.smoothness, *levels, right, solution)
        return solution


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
    residual: Any, inverse: Any, cluster: Any, cluster_inverse: Any, group: Any, group_inverse: Any, out: Any
) -> None:
    """Fill out (V,3) with what three levels, added up, make of residual (V,3)."""
    clusters, groups = cluster_inverse.shape[0], group_inverse.shape[0]
    by_cluster, by_group = np.zeros((clusters, 3), np.float32), np.zeros((groups, 3), np.float32)
    of_groups = np.empty((groups, 3), np.float32)
    for row in range(residual.shape[0]):
        at = np.uint32(cluster[row])
        for k in range(3):
            by_cluster[at, k] += residual[row, k]
    for row in range(clusters):
        at = np.uint32(group[row])
        for k in range(3):
            by_group[at, k] += by_cluster[row, k]
    for row in range(groups):
        x = y = z = np.float32(0)
        for column in range(groups):
            share = group_inverse[row, column]
            x += share * by_group[column, 0]
            y += share * by_group[column, 1]
            z += share * by_group[column, 2]
        of_groups[row, 0], of_groups[row, 1], of_groups[row, 2] = x, y, z
    for row in range(clusters):
        at = np.uint32(group[row])
        for k in range(3):
            by_cluster[row, k] = by_cluster[row, k] * cluster_inverse[row] + of_groups[at, k]
    for row in range(residual.shape[0]):
        at = np.uint32(cluster[row])
        for k in range(3):
            out[row, k] = residual[row, k] * inverse[row] + by_cluster[at, k]


@compiled(fastmath={"contract"})
def _solve(
    mass: Any,
    starts: Any,
    neighbors: Any,
    smoothness: Any,
    cluster: Any,
    cluster_inverse: Any,
    group: Any,
    group_inverse: Any,
    residual: Any,
    solution: Any,
) -> None:
    """Solve (mass + smoothness Laplacian) solution = residual, three columns (V,3), from a solution of zeros."""
    count = mass.shape[0]
    inverse = np.empty(count, np.float32)
    corrected, direction = np.empty((count, 3), np.float32), np.zeros((count, 3), np.float32)
    product = np.empty((count, 3), np.float32)
    energy, before, curvature = np.zeros(3, np.float32), np.zeros(3, np.float32), np.zeros(3, np.float32)
    left, goal = np.zeros(3, np.float32), np.zeros(3, np.float32)
    for row in range(count):
        inverse[row] = np.float32(1) / (mass[row] + smoothness * np.float32(starts[row + 1] - starts[row]))
        for k in range(3):
            goal[k] += np.float32(RESIDUAL * RESIDUAL) * residual[row, k] * residual[row, k]
    for _ in range(STEPS_MAX):
        _correct(residual, inverse, cluster, cluster_inverse, group, group_inverse, corrected)
        before[:] = energy
        energy[:] = curvature[:] = left[:] = 0
        for row in range(count):
            for k in range(3):
                energy[k] += residual[row, k] * corrected[row, k]
        for row in range(count):
            for k in range(3):
                growth = energy[k] / before[k] if before[k] > 0 else np.float32(0)
                direction[row, k] = corrected[row, k] + growth * direction[row, k]
        for row in range(count):
            i = np.uint32(row)
            x = y = z = np.float32(0)
            for at in range(starts[i], starts[i + np.uint32(1)]):
                other = np.uint32(neighbors[np.uint32(at)])
                x += direction[other, 0]
                y += direction[other, 1]
                z += direction[other, 2]
            diagonal = np.float32(1) / inverse[i]
            for k, around in enumerate((x, y, z)):
                product[i, k] = direction[i, k] * diagonal - smoothness * around
                curvature[k] += direction[i, k] * product[i, k]
        for row in range(count):
            for k in range(3):
                step = energy[k] / curvature[k] if curvature[k] > 0 else np.float32(0)
                solution[row, k] += step * direction[row, k]
                residual[row, k] -= step * product[row, k]
                left[k] += residual[row, k] * residual[row, k]
        if left[0] <= goal[0] and left[1] <= goal[1] and left[2] <= goal[2]:
            return
