"""The rasteriser's fast path on the CPU (see `leanface.face.rasterize` for the definition)."""

import math
from typing import Any

import numba
import numpy as np
import torch
from torch import Tensor

from leanface.face import rasterize

_MIN_AREA = np.float32(rasterize.MIN_AREA_PX2)


@numba.njit(nogil=True, cache=True)  # pyright: ignore[reportUntypedFunctionDecorator]
def _visible(vertices: Any, triangles: Any, nearest: Any, depth: Any) -> None:
    """One image: vertices (V,3) float32, triangles (T,3) int64; fills nearest (H,W) int64 and depth (H,W) float32."""
    size = nearest.shape[0]
    for index in range(triangles.shape[0]):
        a, b, c = triangles[index, 0], triangles[index, 1], triangles[index, 2]
        x0, y0 = vertices[a, 0], vertices[a, 1]
        x1, y1 = vertices[b, 0], vertices[b, 1]
        x2, y2 = vertices[c, 0], vertices[c, 1]
        area = (x1 - x0) * (y2 - y0) - (x2 - x0) * (y1 - y0)
        if area >= -_MIN_AREA:
            continue
        inverse = np.float32(1.0) / area
        left, right = max(int(math.ceil(min(x0, x1, x2))), 0), min(int(math.floor(max(x0, x1, x2))), size - 1)
        top, bottom = max(int(math.ceil(min(y0, y1, y2))), 0), min(int(math.floor(max(y0, y1, y2))), size - 1)
        for row in range(top, bottom + 1):
            y = np.float32(row)
            for column in range(left, right + 1):
                x = np.float32(column)
                second = ((x - x0) * (y2 - y0) - (x2 - x0) * (y - y0)) * inverse
                third = ((x1 - x0) * (y - y0) - (x - x0) * (y1 - y0)) * inverse
                first = np.float32(1.0) - second - third
                if first < 0 or second < 0 or third < 0:
                    continue
                z = first * vertices[a, 2] + second * vertices[b, 2] + third * vertices[c, 2]
                if z > depth[row, column]:
                    depth[row, column] = z
                    nearest[row, column] = index


def visible_triangles(vertices_image: Tensor, triangles: Tensor, size: int) -> Tensor:
    """See `leanface.face.rasterize.visible_triangles`; CPU tensors only."""
    vertices, indices = vertices_image.numpy(), triangles.numpy()
    nearest = np.full((len(vertices), size, size), -1, np.int64)
    for image, found in zip(vertices, nearest, strict=True):
        _visible(image, indices, found, np.zeros((size, size), np.float32))
    return torch.from_numpy(nearest)
