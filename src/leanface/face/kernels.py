"""Rasterizing, normals and light on the CPU, compiled (see `leanface.face.rasterize` for what a pixel sees)."""

import math
from typing import Any

import numpy as np
from jaxtyping import Float, Float32, Int

from leanface.face.compiled import compiled
from leanface.face.geometry import BAND_FACTORS, BANDS, MIN_AREA_PX2

_MIN_AREA = np.float32(MIN_AREA_PX2)

LANES = 16
"""Pixels of a row that `fill_visible` looks at together: as many as a processor compares at once, or twice that."""


@compiled(inline="always")
def _least(a: Any, b: Any, c: Any) -> Any:
    """Return the least, faster than min(), which looks for NaN."""
    least = b if b < a else a
    return c if c < least else least


@compiled(inline="always")
def _greatest(a: Any, b: Any, c: Any) -> Any:
    greatest = b if b > a else a
    return c if c > greatest else greatest


@compiled()
def fill_visible(vertices: Any, triangles: Any, nearest: Any, depth: Any) -> None:
    """Fill nearest (H,H+LANES) and depth (H,H+LANES) of one image (H,H): vertices (V,3) float32, triangles (T,3).

    `nearest` starts at -1 and `depth`, whose unit is the inverse of a length, at 0. What the last columns hold is not
    part of the image.
    """
    last = nearest.shape[0] - 1
    zero, one = np.float32(0.0), np.float32(1.0)
    for index in range(triangles.shape[0]):
        a, b, c = triangles[index, 0], triangles[index, 1], triangles[index, 2]
        x0, y0 = vertices[a, 0], vertices[a, 1]
        x1, y1 = vertices[b, 0], vertices[b, 1]
        x2, y2 = vertices[c, 0], vertices[c, 1]
        x10, y10, x20, y20 = x1 - x0, y1 - y0, x2 - x0, y2 - y0
        area = x10 * y20 - x20 * y10
        if area >= -_MIN_AREA:
            continue
        left, right = max(math.ceil(_least(x0, x1, x2)), 0), min(math.floor(_greatest(x0, x1, x2)), last)
        top, bottom = max(math.ceil(_least(y0, y1, y2)), 0), min(math.floor(_greatest(y0, y1, y2)), last)
        if left > right or top > bottom:
            continue
        # A row of whole vectors takes half of the time: what lies beside the triangle is not seen in it.
        end = left + LANES * ((right - left) // LANES + 1)
        inverse = one / area
        z0, z1, z2 = vertices[a, 2], vertices[b, 2], vertices[c, 2]
        for row in range(top, bottom + 1):
            y = np.float32(row) - y0
            for column in range(left, end):
                x = np.float32(column) - x0
                second = (x * y20 - x20 * y) * inverse
                third = (x10 * y - x * y10) * inverse
                first = one - second - third
                z = first * z0 + second * z1 + third * z2
                # Indices known to be unsigned spare numba a check for negative ones.
                i, j = np.uint32(row), np.uint32(column)
                # Always written: half of the pixels lie outside, and no processor foresees which.
                seen = (first >= zero) & (second >= zero) & (third >= zero) & (z > depth[i, j])
                depth[i, j] = z if seen else depth[i, j]
                nearest[i, j] = index if seen else nearest[i, j]


@compiled(inline="always")
def barycentric(vertices: Any, a: Any, b: Any, c: Any, row: Any, column: Any) -> Any:
    """Return the weights of a triangle's second and third corner at a pixel, as `fill_visible` computes them."""
    x0, y0 = vertices[a, 0], vertices[a, 1]
    x10, y10, x20, y20 = vertices[b, 0] - x0, vertices[b, 1] - y0, vertices[c, 0] - x0, vertices[c, 1] - y0
    x, y = np.float32(column) - x0, np.float32(row) - y0
    inverse = np.float32(1.0) / (x10 * y20 - x20 * y10)
    return (x * y20 - x20 * y) * inverse, (x10 * y - x * y10) * inverse


@compiled()
def _weights(vertices: Any, triangles: Any, nearest: Any, weights: Any) -> None:
    """Fill weights (H,W,3) float32 of one image with the barycentric coordinates of pixels that see a triangle."""
    size = nearest.shape[0]
    for row in range(size):
        for column in range(size):
            index = nearest[row, column]
            if index < 0:
                continue
            a, b, c = triangles[index, 0], triangles[index, 1], triangles[index, 2]
            second, third = barycentric(vertices, a, b, c, row, column)
            weights[row, column, 0] = np.float32(1.0) - second - third
            weights[row, column, 1] = second
            weights[row, column, 2] = third


@compiled()
def _blend(nearest: Any, weights: Any, attributes: Any, triangles: Any, out: Any) -> None:
    """Fill out (H,W,C) float32 of one image with the attributes (V,C) of the visible triangles."""
    size, channels = nearest.shape[0], attributes.shape[1]
    for row in range(size):
        for column in range(size):
            index = nearest[row, column]
            if index < 0:
                continue
            for corner in range(3):
                weight, vertex = weights[row, column, corner], triangles[index, corner]
                for channel in range(channels):
                    out[row, column, channel] += weight * attributes[vertex, channel]


@compiled()
def _shade(nearest: Any, vertices: Any, triangles: Any, attributes: Any, supersample: int, out: Any) -> None:
    """Add to out (4,H,W) float32 of one image the attributes (V,3) that its samples (H*s,W*s) see, and coverage."""
    size = nearest.shape[0]
    share = np.float32(1.0 / supersample**2)
    for row in range(size):
        i = row // supersample
        for column in range(size):
            index = nearest[row, column]
            if index < 0:
                continue
            j = column // supersample
            a, b, c = triangles[index, 0], triangles[index, 1], triangles[index, 2]
            second, third = barycentric(vertices, a, b, c, row, column)
            first = np.float32(1.0) - second - third
            for channel in range(3):
                out[channel, i, j] += share * (
                    first * attributes[a, channel] + second * attributes[b, channel] + third * attributes[c, channel]
                )
            out[3, i, j] += share


@compiled()
def _draw(vertices: Any, attributes: Any, triangles: Any, supersample: int, out: Any) -> None:
    """Fill out (B,4,H,W) float32, zero at first, with the attributes and the coverage of all images."""
    samples = out.shape[2] * supersample
    nearest = np.empty((samples, samples + LANES), np.int32)
    depth = np.empty((samples, samples + LANES), np.float32)
    for image in range(out.shape[0]):
        nearest[:] = -1
        depth[:] = 0
        fill_visible(vertices[image], triangles, nearest, depth)
        _shade(nearest, vertices[image], triangles, attributes[image], supersample, out[image])


@compiled()
def _irradiance(normals: Any, lighting: Any, out: Any) -> None:
    """Fill out (B,V,3) float32 from unit normals (B,V,3) and lighting (B,9,3), constants included."""
    for image in range(normals.shape[0]):
        for channel in range(3):
            g0, g1, g2 = lighting[image, 0, channel], lighting[image, 1, channel], lighting[image, 2, channel]
            g3, g4, g5 = lighting[image, 3, channel], lighting[image, 4, channel], lighting[image, 5, channel]
            g6, g7, g8 = lighting[image, 6, channel], lighting[image, 7, channel], lighting[image, 8, channel]
            for vertex in range(normals.shape[1]):
                x, y, z = normals[image, vertex, 0], normals[image, vertex, 1], normals[image, vertex, 2]
                light = g0 + x * (g3 + g4 * y + g7 * z + g8 * x) + y * (g1 + g5 * z - g8 * y) + z * (g2 + g6 * z)
                out[image, vertex, channel] = max(light, np.float32(0.0))


@compiled()
def fill_normals(vertices: Any, triangles: Any, out: Any) -> None:
    """Fill out (V,3) float32 of one mesh, zero at first; see `leanface.face.lighting.vertex_normals`."""
    for index in range(triangles.shape[0]):
        a, b, c = np.uint32(triangles[index, 0]), np.uint32(triangles[index, 1]), np.uint32(triangles[index, 2])
        x, y, z = vertices[a, 0], vertices[a, 1], vertices[a, 2]
        ux, uy, uz = vertices[b, 0] - x, vertices[b, 1] - y, vertices[b, 2] - z
        vx, vy, vz = vertices[c, 0] - x, vertices[c, 1] - y, vertices[c, 2] - z
        nx, ny, nz = uy * vz - uz * vy, uz * vx - ux * vz, ux * vy - uy * vx
        for vertex in (a, b, c):
            out[vertex, 0] += nx
            out[vertex, 1] += ny
            out[vertex, 2] += nz
    for vertex in range(out.shape[0]):
        x, y, z = out[vertex, 0], out[vertex, 1], out[vertex, 2]
        scale = np.float32(1.0) / max(np.sqrt(x * x + y * y + z * z), np.float32(1e-12))
        out[vertex, 0] = x * scale
        out[vertex, 1] = y * scale
        out[vertex, 2] = z * scale


def visible_triangles(
    vertices_image: Float32[np.ndarray, "batch vertices 3"], triangles: Int[np.ndarray, "triangles 3"], size: int
) -> Int[np.ndarray, "batch size size"]:
    """See `leanface.face.rasterize.visible_triangles`."""
    nearest = np.empty((len(vertices_image), size, size), np.int64)
    for image, found in zip(vertices_image, nearest, strict=True):
        found[:], _ = nearest_triangles(image, triangles, size)
    return nearest


def nearest_triangles(
    vertices_image: Float32[np.ndarray, "vertices 3"], triangles: Int[np.ndarray, "triangles 3"], size: int
) -> tuple[Int[np.ndarray, "size size"], Float32[np.ndarray, "size size"]]:
    """Return the number of the triangle that each pixel sees, and its 1 / depth; -1 and 0 where it sees none."""
    nearest, depth = np.full((size, size + LANES), -1, np.int32), np.zeros((size, size + LANES), np.float32)
    fill_visible(vertices_image, triangles, nearest, depth)
    return nearest[:, :size], depth[:, :size]


def pixel_barycentric(
    vertices_image: Float32[np.ndarray, "batch vertices 3"],
    triangles: Int[np.ndarray, "triangles 3"],
    triangle: Int[np.ndarray, "batch size size"],
) -> Float32[np.ndarray, "batch size size 3"]:
    """Weigh the corners of the triangle that each pixel sees; zero where it sees none."""
    weights = np.zeros((*triangle.shape, 3), np.float32)
    for image, nearest, out in zip(vertices_image, triangle, weights, strict=True):
        _weights(image, triangles, nearest, out)
    return weights


def interpolate(
    triangle: Int[np.ndarray, "batch size size"],
    barycentric: Float32[np.ndarray, "batch size size 3"],
    attributes: Float32[np.ndarray, "batch vertices channels"],
    triangles: Int[np.ndarray, "triangles 3"],
) -> Float32[np.ndarray, "batch size size channels"]:
    """See `leanface.face.rasterize.interpolate`."""
    blended = np.zeros((*triangle.shape, attributes.shape[-1]), np.float32)
    for nearest, weights, values, out in zip(triangle, barycentric, attributes, blended, strict=True):
        _blend(nearest, weights, values, triangles, out)
    return blended


def draw(
    vertices_image: Float32[np.ndarray, "batch vertices 3"],
    attributes: Float32[np.ndarray, "batch vertices 3"],
    triangles: Int[np.ndarray, "triangles 3"],
    size: int,
    supersample: int,
) -> Float32[np.ndarray, "batch 4 size size"]:
    """See `leanface.face.rasterize.draw`."""
    out = np.zeros((len(vertices_image), 4, size, size), np.float32)
    _draw(vertices_image, attributes, np.ascontiguousarray(triangles, np.int32), supersample, out)
    return out


def vertex_normals(
    vertices: Float32[np.ndarray, "batch vertices 3"], triangles: Int[np.ndarray, "triangles 3"]
) -> Float32[np.ndarray, "batch vertices 3"]:
    """See `leanface.face.lighting.vertex_normals`."""
    normals = np.zeros(vertices.shape, np.float32)
    for mesh, out in zip(vertices, normals, strict=True):
        fill_normals(mesh, triangles, out)
    return normals


def irradiance(
    normals: Float32[np.ndarray, "batch vertices 3"], lighting: Float[np.ndarray, "batch 27"]
) -> Float32[np.ndarray, "batch vertices 3"]:
    """See `leanface.face.lighting.irradiance`."""
    bands = lighting.reshape(-1, BANDS, 3) * np.array(BAND_FACTORS, np.float32)[:, None]
    bands[:, 0] -= bands[:, 6] / 3  # the sixth band is z z - 1/3
    out = np.empty(normals.shape, np.float32)
    _irradiance(normals, bands, out)
    return out
