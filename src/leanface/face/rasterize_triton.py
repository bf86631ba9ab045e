"""The rasterizer's fast path on CUDA: Triton kernels (see `leanface.face.rasterize` for the definition).

One program handles a block of triangles of one image: each lane walks its own triangle's bounding box and keeps the
nearest by an atomic maximum over 64-bit keys (bits of 1/depth above the inverted triangle index). Attributes are
fetched afterwards, once per pixel. With TRITON_INTERPRET=1 the kernels also run on the CPU.
"""

# pyright: basic, reportMissingImports=false, reportIndexIssue=false
# Triton comes with PyTorch for CUDA only, and a checker cannot follow its language inside a kernel.

import functools

import torch
import triton
import triton.language as tl
from torch import Tensor

from leanface.face.geometry import BAND_FACTORS, BANDS, MIN_AREA_PX2

TRIANGLES_PER_BLOCK = 64
PIXELS_PER_BLOCK = 256
VERTICES_PER_BLOCK = 128


@triton.jit
def _load3(pointer, at, mask):
    """Load three numbers in a row: a vertex's coordinates, a color, a triangle's corners."""
    return tl.load(pointer + at, mask, 0), tl.load(pointer + at + 1, mask, 0), tl.load(pointer + at + 2, mask, 0)


@triton.jit
def _barycentric(vertices, i0, i1, i2, x, y, hit):
    """Compute the weights of the corners at a pixel; of no meaning where nothing is hit."""
    x0, y0 = tl.load(vertices + i0, hit, 0.0), tl.load(vertices + i0 + 1, hit, 0.0)
    x1, y1 = tl.load(vertices + i1, hit, 0.0), tl.load(vertices + i1 + 1, hit, 0.0)
    x2, y2 = tl.load(vertices + i2, hit, 0.0), tl.load(vertices + i2 + 1, hit, 0.0)
    area = (x1 - x0) * (y2 - y0) - (x2 - x0) * (y1 - y0)
    inverse = 1.0 / tl.where(hit, area, 1.0)
    second = ((x - x0) * (y2 - y0) - (x2 - x0) * (y - y0)) * inverse
    third = ((x1 - x0) * (y - y0) - (x - x0) * (y1 - y0)) * inverse
    return 1.0 - second - third, second, third


@triton.jit
def _keys_kernel(
    vertices, triangles, keys, vertex_count, triangle_count, size, MIN_AREA: tl.constexpr, BLOCK: tl.constexpr
):
    image = tl.program_id(1).to(tl.int64)
    t = tl.program_id(0) * BLOCK + tl.arange(0, BLOCK)
    valid = t < triangle_count
    base = image * vertex_count * 3
    i0, i1, i2 = _load3(triangles, t * 3, valid)
    i0, i1, i2 = base + i0 * 3, base + i1 * 3, base + i2 * 3
    x0, y0, z0 = _load3(vertices, i0, valid)
    x1, y1, z1 = _load3(vertices, i1, valid)
    x2, y2, z2 = _load3(vertices, i2, valid)
    area = (x1 - x0) * (y2 - y0) - (x2 - x0) * (y1 - y0)
    front = valid & (area < -MIN_AREA)
    inverse = 1.0 / tl.where(front, area, -1.0)
    left = tl.maximum(tl.ceil(tl.minimum(x0, tl.minimum(x1, x2))), 0.0)
    right = tl.minimum(tl.floor(tl.maximum(x0, tl.maximum(x1, x2))), size - 1.0)
    top = tl.maximum(tl.ceil(tl.minimum(y0, tl.minimum(y1, y2))), 0.0)
    bottom = tl.minimum(tl.floor(tl.maximum(y0, tl.maximum(y1, y2))), size - 1.0)
    width = tl.where(front, tl.maximum(right - left + 1.0, 0.0), 0.0)
    height = tl.where(front, tl.maximum(bottom - top + 1.0, 0.0), 0.0)
    # The block walks the largest bounding box among its lanes; the others mask themselves out.
    columns = tl.max(tl.where(height > 0.0, width, 0.0), 0).to(tl.int32)
    rows = tl.max(tl.where(width > 0.0, height, 0.0), 0).to(tl.int32)
    buffer = keys + image * size * size
    inverted = (0x7FFFFFFF - t).to(tl.int64)
    for dy in range(0, rows):
        y = top + dy
        for dx in range(0, columns):
            x = left + dx
            second = ((x - x0) * (y2 - y0) - (x2 - x0) * (y - y0)) * inverse
            third = ((x1 - x0) * (y - y0) - (x - x0) * (y1 - y0)) * inverse
            first = 1.0 - second - third
            inside = (dx < width) & (dy < height) & (first >= 0.0) & (second >= 0.0) & (third >= 0.0)
            z = first * z0 + second * z1 + third * z2
            inside = inside & (z > 0.0)
            key = (z.to(tl.int32, bitcast=True).to(tl.int64) << 32) | inverted
            tl.atomic_max(buffer + (y * size + x).to(tl.int32), key, mask=inside, sem="relaxed")


@triton.jit
def _barycentric_kernel(vertices, triangles, triangle, weights, vertex_count, pixel_count, size, BLOCK: tl.constexpr):
    image = tl.program_id(1).to(tl.int64)
    p = tl.program_id(0) * BLOCK + tl.arange(0, BLOCK)
    valid = p < pixel_count
    t = tl.load(triangle + image * pixel_count + p, valid, -1)
    hit = t >= 0
    base = image * vertex_count * 3
    i0, i1, i2 = _load3(triangles, t * 3, hit)
    i0, i1, i2 = base + i0 * 3, base + i1 * 3, base + i2 * 3
    x, y = (p % size).to(tl.float32), (p // size).to(tl.float32)
    first, second, third = _barycentric(vertices, i0, i1, i2, x, y, hit)
    out = weights + (image * pixel_count + p) * 3
    tl.store(out, tl.where(hit, first, 0.0), valid)
    tl.store(out + 1, tl.where(hit, second, 0.0), valid)
    tl.store(out + 2, tl.where(hit, third, 0.0), valid)


@triton.jit
def _interpolate_kernel(
    triangle,
    weights,
    attributes,
    triangles,
    out,
    vertex_count,
    pixel_count,
    CHANNELS: tl.constexpr,
    BLOCK: tl.constexpr,
):
    image = tl.program_id(1).to(tl.int64)
    p = tl.program_id(0) * BLOCK + tl.arange(0, BLOCK)
    valid = p < pixel_count
    at = image * pixel_count + p
    t = tl.load(triangle + at, valid, -1)
    hit = t >= 0
    base = image * vertex_count * CHANNELS
    i0, i1, i2 = _load3(triangles, t * 3, hit)
    i0, i1, i2 = base + i0 * CHANNELS, base + i1 * CHANNELS, base + i2 * CHANNELS
    w0, w1, w2 = _load3(weights, at * 3, hit)
    for channel in tl.static_range(CHANNELS):
        value = (
            w0 * tl.load(attributes + i0 + channel, hit, 0.0)
            + w1 * tl.load(attributes + i1 + channel, hit, 0.0)
            + w2 * tl.load(attributes + i2 + channel, hit, 0.0)
        )
        tl.store(out + at * CHANNELS + channel, value, valid)


@triton.jit
def _draw_kernel(
    keys, vertices, attributes, triangles, out, vertex_count, size, SUPERSAMPLE: tl.constexpr, BLOCK: tl.constexpr
):
    image = tl.program_id(1).to(tl.int64)
    p = tl.program_id(0) * BLOCK + tl.arange(0, BLOCK)
    valid = p < size * size
    row, column = p // size, p % size
    samples = size * SUPERSAMPLE
    base = image * vertex_count * 3
    red = tl.zeros([BLOCK], tl.float32)
    green = tl.zeros([BLOCK], tl.float32)
    blue = tl.zeros([BLOCK], tl.float32)
    coverage = tl.zeros([BLOCK], tl.float32)
    for sample in tl.static_range(SUPERSAMPLE * SUPERSAMPLE):
        y = row * SUPERSAMPLE + sample // SUPERSAMPLE
        x = column * SUPERSAMPLE + sample % SUPERSAMPLE
        key = tl.load(keys + image * samples * samples + y * samples + x, valid, 0)
        hit = key > 0
        t = 0x7FFFFFFF - (key & 0xFFFFFFFF)
        i0, i1, i2 = _load3(triangles, t * 3, hit)
        i0, i1, i2 = base + i0 * 3, base + i1 * 3, base + i2 * 3
        px, py = x.to(tl.float32), y.to(tl.float32)
        first, second, third = _barycentric(vertices, i0, i1, i2, px, py, hit)
        r0, g0, b0 = _load3(attributes, i0, hit)
        r1, g1, b1 = _load3(attributes, i1, hit)
        r2, g2, b2 = _load3(attributes, i2, hit)
        red += first * r0 + second * r1 + third * r2
        green += first * g0 + second * g1 + third * g2
        blue += first * b0 + second * b1 + third * b2
        coverage += hit.to(tl.float32)
    share = 1.0 / (SUPERSAMPLE * SUPERSAMPLE)
    at = out + image * 4 * size * size + p
    tl.store(at, red * share, valid)
    tl.store(at + size * size, green * share, valid)
    tl.store(at + 2 * size * size, blue * share, valid)
    tl.store(at + 3 * size * size, coverage * share, valid)


@triton.jit
def _normals_kernel(vertices, ring, normals, vertex_count, NEIGHBORS: tl.constexpr, BLOCK: tl.constexpr):
    image = tl.program_id(1).to(tl.int64)
    v = tl.program_id(0) * BLOCK + tl.arange(0, BLOCK)
    valid = v < vertex_count
    base = image * vertex_count * 3
    at = base + v * 3
    x, y, z = _load3(vertices, at, valid)
    nx = tl.zeros([BLOCK], tl.float32)
    ny = tl.zeros([BLOCK], tl.float32)
    nz = tl.zeros([BLOCK], tl.float32)
    for k in range(NEIGHBORS):
        b = base + tl.load(ring + (2 * k) * vertex_count + v, valid, 0) * 3
        c = base + tl.load(ring + (2 * k + 1) * vertex_count + v, valid, 0) * 3
        bx, by, bz = _load3(vertices, b, valid)
        cx, cy, cz = _load3(vertices, c, valid)
        bx, by, bz = bx - x, by - y, bz - z
        cx, cy, cz = cx - x, cy - y, cz - z
        nx += by * cz - bz * cy
        ny += bz * cx - bx * cz
        nz += bx * cy - by * cx
    scale = 1.0 / tl.maximum(tl.sqrt(nx * nx + ny * ny + nz * nz), 1e-12)
    tl.store(normals + at, nx * scale, valid)
    tl.store(normals + at + 1, ny * scale, valid)
    tl.store(normals + at + 2, nz * scale, valid)


@triton.jit
def _irradiance_kernel(normals, gains, out, vertex_count, BLOCK: tl.constexpr):
    image = tl.program_id(1).to(tl.int64)
    v = tl.program_id(0) * BLOCK + tl.arange(0, BLOCK)
    valid = v < vertex_count
    at = image * vertex_count * 3 + v * 3
    x, y, z = _load3(normals, at, valid)
    for channel in range(3):
        gain = gains + image * 27 + channel
        light = tl.load(gain) + tl.load(gain + 3) * y + tl.load(gain + 6) * z + tl.load(gain + 9) * x
        light += tl.load(gain + 12) * x * y + tl.load(gain + 15) * y * z + tl.load(gain + 18) * (z * z - 1.0 / 3)
        light += tl.load(gain + 21) * x * z + tl.load(gain + 24) * (x * x - y * y)
        tl.store(out + at + channel, tl.maximum(light, 0.0), valid)


def visible_triangles(vertices_image: Tensor, triangles: Tensor, size: int) -> Tensor:
    """See `leanface.face.rasterize.visible_triangles`."""
    keys = _nearest(vertices_image, triangles, size)
    nearest = torch.where(keys > 0, 0x7FFFFFFF - (keys & 0xFFFFFFFF), -1)
    return nearest.view(len(vertices_image), size, size)


def draw(vertices_image: Tensor, attributes: Tensor, triangles: Tensor, size: int, supersample: int) -> Tensor:
    """See `leanface.face.rasterize.draw`."""
    batch, vertex_count = vertices_image.shape[:2]
    keys = _nearest(vertices_image, triangles, size * supersample)
    out = torch.empty(batch, 4, size, size, device=vertices_image.device)
    grid = (triton.cdiv(size * size, PIXELS_PER_BLOCK), batch)
    _draw_kernel[grid](
        keys, vertices_image, attributes, triangles.contiguous(), out, vertex_count, size,
        SUPERSAMPLE=supersample, BLOCK=PIXELS_PER_BLOCK,
    )  # fmt: skip
    return out


def _nearest(vertices_image: Tensor, triangles: Tensor, size: int) -> Tensor:
    """Find each pixel's largest key (B, size * size): bits of 1/depth above the inverted triangle index; 0 for none."""
    batch, vertex_count = vertices_image.shape[:2]
    keys = torch.zeros(batch, size * size, dtype=torch.int64, device=vertices_image.device)
    grid = (triton.cdiv(len(triangles), TRIANGLES_PER_BLOCK), batch)
    _keys_kernel[grid](
        vertices_image, triangles.contiguous(), keys, vertex_count, len(triangles), size,
        MIN_AREA=MIN_AREA_PX2, BLOCK=TRIANGLES_PER_BLOCK, num_warps=2,
    )  # fmt: skip
    return keys


def pixel_barycentric(vertices_image: Tensor, triangles: Tensor, triangle: Tensor) -> Tensor:
    """Compute the barycentric weights (B,H,W,3) of every pixel in the triangle that it sees; zero without one."""
    batch, size = triangle.shape[:2]
    weights = torch.empty(*triangle.shape, 3, device=triangle.device)
    grid = (triton.cdiv(size * size, PIXELS_PER_BLOCK), batch)
    _barycentric_kernel[grid](
        vertices_image, triangles.contiguous(), triangle, weights, vertices_image.shape[1], size * size, size,
        BLOCK=PIXELS_PER_BLOCK,
    )  # fmt: skip
    return weights


def interpolate(triangle: Tensor, barycentric: Tensor, attributes: Tensor, triangles: Tensor) -> Tensor:
    """See `leanface.face.rasterize.interpolate`."""
    batch, size = triangle.shape[:2]
    out = torch.empty(*triangle.shape, attributes.shape[-1], device=triangle.device)
    grid = (triton.cdiv(size * size, PIXELS_PER_BLOCK), batch)
    _interpolate_kernel[grid](
        triangle, barycentric, attributes, triangles.contiguous(), out, attributes.shape[1], size * size,
        CHANNELS=attributes.shape[-1], BLOCK=PIXELS_PER_BLOCK,
    )  # fmt: skip
    return out


def vertex_ring(triangles: Tensor, vertex_count: int) -> Tensor:
    """List the other two corners of every triangle around each vertex: int32 (2 * most, V), padded with the vertex.

    A padded pair spans no area, so it adds nothing to a normal.
    """
    vertex = triangles.flatten()
    following = triangles.roll(-1, 1).flatten()
    last = triangles.roll(-2, 1).flatten()
    order = torch.argsort(vertex, stable=True)
    vertex, following, last = vertex[order], following[order], last[order]
    count = torch.bincount(vertex, minlength=vertex_count)
    place = torch.arange(len(vertex), device=vertex.device) - (torch.cumsum(count, 0) - count)[vertex]
    ring = torch.arange(vertex_count, device=vertex.device).repeat(2 * int(count.max()), 1)
    ring[2 * place, vertex] = following
    ring[2 * place + 1, vertex] = last
    return ring.int().contiguous()


def vertex_normals(vertices: Tensor, ring: Tensor) -> Tensor:
    """See `leanface.face.lighting.vertex_normals`; `ring` comes from `vertex_ring`."""
    vertices = vertices.contiguous()
    batch, vertex_count = vertices.shape[:2]
    normals = torch.empty_like(vertices)
    grid = (triton.cdiv(vertex_count, VERTICES_PER_BLOCK), batch)
    _normals_kernel[grid](vertices, ring, normals, vertex_count, NEIGHBORS=len(ring) // 2, BLOCK=VERTICES_PER_BLOCK)
    return normals


def irradiance(normals: Tensor, lighting: Tensor) -> Tensor:
    """See `leanface.face.lighting.irradiance`."""
    normals = normals.contiguous()
    batch, vertex_count = normals.shape[:2]
    gains = lighting.reshape(batch, BANDS, 3) * _band_factors(lighting.device)
    out = torch.empty_like(normals)
    grid = (triton.cdiv(vertex_count, VERTICES_PER_BLOCK), batch)
    _irradiance_kernel[grid](normals, gains, out, vertex_count, BLOCK=VERTICES_PER_BLOCK)
    return out


@functools.cache  # a CUDA graph that is being captured could not copy them to the device
def _band_factors(device: torch.device) -> Tensor:
    return torch.tensor(BAND_FACTORS, device=device)[:, None]
