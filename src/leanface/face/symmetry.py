"""The vertices of a symmetric mesh in pairs."""

from typing import Any

import numpy as np
from jaxtyping import Float32, Int

from leanface.face.compiled import compiled

REACH = 0.005
"""How far a vertex may lie from its partner's mirror image along y, in decimeters."""


def mirror_images(vertices: Float32[np.ndarray, "vertices 3"]) -> Int[np.ndarray, " vertices"]:
    """Find for each vertex the one that lies nearest to its mirror image in x, among those at about its height."""
    order = np.argsort(vertices[:, 1], kind="stable")
    partner = np.empty(len(vertices), np.int64)
    _pair(vertices[order], partner)
    mirrored = np.empty_like(partner)
    mirrored[order] = order[partner]
    return mirrored


@compiled()
def _pair(vertices: Any, partner: Any) -> None:
    """Fill partner (V,) for vertices (V,3) in order of y."""
    first = 0
    for vertex in range(len(vertices)):
        x, y, z = vertices[vertex]
        while vertices[first, 1] < y - REACH:
            first += 1
        partner[vertex], best = vertex, np.inf
        for other in range(first, len(vertices)):
            if vertices[other, 1] > y + REACH:
                break
            distance = (vertices[other, 0] + x) ** 2 + (vertices[other, 1] - y) ** 2 + (vertices[other, 2] - z) ** 2
            if distance < best:
                partner[vertex], best = other, distance
