"""Loop subdivision as a sparse matrix."""

from typing import Any, NamedTuple, cast

import numpy as np
import scipy.sparse as sp
from numpy.typing import NDArray

from leanface.errors import ArtifactError

Ints = NDArray[np.int64]


class Subdivision(NamedTuple):
    """One step of Loop subdivision.

    Attributes:
        operator: (dense vertices, coarse vertices), float64; rows sum to 1, so ``operator @ x`` refines any
            linear quantity (positions, basis vectors).
        triangles: (4 * triangles, 3) int64, wound like the coarse ones.
        corner_values: (4 * triangles, 3, values) float64: the values given at the coarse corners,
            interpolated linearly.
    """

    operator: sp.csr_matrix
    triangles: Ints
    corner_values: NDArray[np.float64]


def loop_subdivision(triangles: Ints, vertex_count: int, corner_values: NDArray[np.float64]) -> Subdivision:
    """Splits every triangle into four and smooths, by C. Loop's weights.

    Args:
        triangles: (triangles, 3); an edge belongs to one triangle (boundary) or two (interior).
        vertex_count: number of coarse vertices, including any that no triangle uses.
        corner_values: (triangles, 3, values), such as texture coordinates; per corner, as they jump at
            seams.

    Raises:
        ArtifactError: An edge is shared by more than two triangles.

    Source: C. Loop, "Smooth subdivision surfaces based on triangles", 1987, with Warren's simpler interior
        weights (3/16 at valence 3, 3/(8n) otherwise) and the cubic B-spline rule on boundaries.
    """
    count = len(triangles)
    half_edges = np.concatenate([triangles[:, [0, 1]], triangles[:, [1, 2]], triangles[:, [2, 0]]])
    edges, edge_of, sharing = np.unique(np.sort(half_edges, axis=1), axis=0, return_inverse=True, return_counts=True)
    edge_of = edge_of.reshape(-1)
    if sharing.max(initial=0) > 2:
        raise ArtifactError(
            f"Loop subdivision needs a manifold mesh: {int((sharing > 2).sum())} edges belong to more than "
            "two triangles."
        )
    even = _even_rows(edges, sharing, vertex_count)
    odd = _odd_rows(edges, edge_of, sharing, triangles, vertex_count)
    operator = sp.csr_matrix(cast(Any, sp.vstack([even, odd])))
    operator.sort_indices()

    a, b, c = triangles.T
    ab, bc, ca = (vertex_count + edge_of[i * count : (i + 1) * count] for i in range(3))
    split = np.concatenate([np.stack(t, axis=1) for t in ((a, ab, ca), (b, bc, ab), (c, ca, bc), (ab, bc, ca))])
    va, vb, vc = corner_values.swapaxes(0, 1)
    vab, vbc, vca = (va + vb) / 2, (vb + vc) / 2, (vc + va) / 2
    values = np.concatenate(
        [np.stack(t, axis=1) for t in ((va, vab, vca), (vb, vbc, vab), (vc, vca, vbc), (vab, vbc, vca))]
    )
    return Subdivision(operator, split, values)


def _even_rows(edges: Ints, sharing: Ints, vertex_count: int) -> sp.csr_matrix:
    """Rows that move the coarse vertices: (vertex_count, vertex_count)."""
    boundary_edges = edges[sharing == 1]
    is_boundary = np.zeros(vertex_count, dtype=bool)
    is_boundary[boundary_edges.ravel()] = True
    both = np.concatenate([edges, edges[:, ::-1]])
    valence = np.bincount(both[:, 0], minlength=vertex_count)
    weight = np.where(valence == 3, 3 / 16, 3 / (8 * np.maximum(valence, 1)))

    inner = both[~is_boundary[both[:, 0]]]
    rim = np.concatenate([boundary_edges, boundary_edges[:, ::-1]])
    rim_valence = np.bincount(rim[:, 0], minlength=vertex_count)
    every = np.arange(vertex_count)
    center = np.where(is_boundary, 1 - rim_valence / 8, 1 - valence * weight)
    rows = np.concatenate([every, inner[:, 0], rim[:, 0]])
    columns = np.concatenate([every, inner[:, 1], rim[:, 1]])
    data = np.concatenate([center, weight[inner[:, 0]], np.full(len(rim), 1 / 8)])
    return sp.csr_matrix((data, (rows, columns)), shape=(vertex_count, vertex_count))


def _odd_rows(edges: Ints, edge_of: Ints, sharing: Ints, triangles: Ints, vertex_count: int) -> sp.csr_matrix:
    """Rows that place a new vertex on every edge: (edges, vertex_count)."""
    opposite = np.concatenate([triangles[:, 2], triangles[:, 0], triangles[:, 1]])
    interior = sharing[edge_of] == 2
    every = np.arange(len(edges))
    end_weight = np.where(sharing == 2, 3 / 8, 1 / 2)
    rows = np.concatenate([every, every, edge_of[interior]])
    columns = np.concatenate([edges[:, 0], edges[:, 1], opposite[interior]])
    data = np.concatenate([end_weight, end_weight, np.full(int(interior.sum()), 1 / 8)])
    return sp.csr_matrix((data, (rows, columns)), shape=(len(edges), vertex_count))
