"""The same textures as `leanface.face.photo_texture`, by PyTorch: what a GPU paints while the processor does the rest.

Arrays go in and come out as there, so that either can be used. Reductions add up in another order, and the continuation
takes a fixed number of steps, as the GPU would have to wait for the processor to decide on more: colors differ by a
level or two where no photo shows any.
"""

import importlib
import logging
from typing import NamedTuple, Self, cast
from weakref import WeakKeyDictionary

import numpy as np
import torch
from jaxtyping import Float, Float32, Int, UInt8
from torch import Tensor
from torch.nn import functional

from leanface.face import visibility
from leanface.face.continuation import Graph
from leanface.face.geometry import DISTANCE_M
from leanface.face.jpeg import encode_jpeg
from leanface.face.photo_texture import (
    DARK,
    DECAY,
    LIGHT_MIN,
    LIGHT_STEPS,
    MIRRORED,
    RATIO_LOG_MAX,
    Lighting,
    PhotoTexture,
    reduced,
    reduction,
    require_size,
)
from leanface.face.rasterize import interpolate, rasterize
from leanface.face.uv_layout import UvLayout

logger = logging.getLogger(__name__)

STEPS = 20
"""Of the continuation; on the CPU it takes 16 for the packaged portraits."""

TEXELS_AT_ONCE = 2**22
"""How many are painted together; each takes about 200 bytes meanwhile."""

REACH_PX = 9
"""How far from the outline, in pixels of half the depth map, distances are told apart; the photo counts for all
before that."""


class _Neighbors:
    """Sums over some rows of values (V+1,C), whose last row is 0."""

    def __init__(self, starts: Int[np.ndarray, " rows+1"], members: Int[np.ndarray, " entries"], none: int) -> None:
        counts = np.diff(starts)
        table = np.full((len(counts), max(int(counts.max()), 1)), none)
        table[np.arange(table.shape[1]) < counts[:, None]] = members
        self._table = torch.from_numpy(table)
        self.counts = torch.from_numpy(counts.astype(np.float32))[:, None]

    @classmethod
    def of(cls, graph: Graph) -> Self:
        return cls(graph.starts, graph.neighbors, len(graph.starts) - 1)

    @classmethod
    def of_parts(cls, part: Int[np.ndarray, " members"], count: int) -> Self:
        """Gather the members of each part."""
        starts = np.searchsorted(np.sort(part), np.arange(count + 1))
        return cls(starts, np.argsort(part, kind="stable"), len(part))

    def to(self, device: torch.device) -> Self:
        self._table, self.counts = self._table.to(device), self.counts.to(device)
        return self

    def sums(self, values: Float[Tensor, "V C"]) -> Float[Tensor, "rows C"]:
        return functional.pad(values, (0, 0, 0, 1))[self._table].sum(1)

    def means(self, values: Float[Tensor, "V C"]) -> Float[Tensor, "rows C"]:
        return self.sums(values) / self.counts.clamp_min(1)


class _Map(NamedTuple):
    """A layout on the device.

    Attributes:
        shown: the triangle of each texel; any where it shows none.
        empty: texels that show none; `source` has the ones that their colors are taken from.
        corners: of the triangles.
        planes: see `leanface.face.uv_layout.Painting`.
        areas: of some triangles, in texels.
    """

    shown: Int[Tensor, " texels"]
    empty: Int[Tensor, " empty"]
    source: Int[Tensor, " empty"]
    corners: Int[Tensor, "triangles 3"]
    planes: Float[Tensor, "triangles 6"]


class TorchTexture:
    """Takes textures from photos on one device. Threads that share it take turns on it."""

    def __init__(self, painter: PhotoTexture, device: str) -> None:
        """Carry over what a model's painter on the CPU knows of the mesh."""
        self._device = torch.device(device)
        self._painter = painter
        seen, continuation = painter.visibility, painter.continuation
        self._triangles = self._put(seen.triangles).long()
        self._opening_triangles = self._put(seen.opening_triangles)
        self._openings = self._put(seen.openings)
        self._mirror = self._put(painter.mirror)
        self._around = _Neighbors.of(painter.graph).to(self._device)
        self._within_seams = _Neighbors.of(seen.graph).to(self._device)
        self._smoothness = float(continuation.smoothness)
        self._cluster, self._group = self._put(continuation.cluster), self._put(continuation.group)
        clusters, groups = len(continuation.group), len(continuation.laplacian)
        self._of_cluster = _Neighbors.of_parts(continuation.cluster, clusters).to(self._device)
        self._of_group = _Neighbors.of_parts(continuation.group, groups).to(self._device)
        self._bonds = self._put(continuation.bonds)[:, None]
        self._laplacian = self._put(continuation.laplacian.astype(np.float32))
        self._steps = _steps(REACH_PX).to(self._device)
        self._maps: WeakKeyDictionary[UvLayout, _Map] = WeakKeyDictionary()

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
        """Paint the texture as `PhotoTexture.paint` does, on the CPU if the device has too little memory.

        Raises:
            ConfigError: the size is above SIZE_MAX_PX.
        """
        require_size(layout.size)
        seen = vertices_photo, vertices_camera, normals_camera
        try:
            with torch.inference_mode():
                return self._paint(layout, photo, *seen, lighting, delight=delight)
        except torch.OutOfMemoryError:
            logger.warning("the GPU has too little free memory for a texture: it is painted on the CPU")
            return self._painter.paint(layout, photo, *seen, lighting, delight=delight)

    def encode_jpeg(self, pixels: UInt8[np.ndarray, "H W 3"], quality: int) -> bytes:
        """Encode a texture by nvJPEG, or on the CPU without torchvision, another GPU than NVIDIA's, or enough memory.

        nvJPEG keeps the colors' whole resolution: such files are a third larger.
        """
        try:
            io = importlib.import_module("torchvision.io")
            # Copied first: to take the colors apart is work for the device.
            planes = torch.from_numpy(pixels).to(self._device).permute(2, 0, 1).contiguous()
            return cast(Tensor, io.encode_jpeg(planes, quality)).cpu().numpy().tobytes()
        except (ImportError, RuntimeError):
            return encode_jpeg(pixels, quality)

    def _paint(
        self,
        layout: UvLayout,
        photo: UInt8[np.ndarray, "H W 3"],
        vertices_photo: Float[np.ndarray, "vertices 3"],
        vertices_camera: Float[np.ndarray, "vertices 3"],
        normals_camera: Float[np.ndarray, "vertices 3"],
        lighting: Lighting,
        *,
        delight: bool,
    ) -> UInt8[np.ndarray, "size size 3"]:
        place = self._map(layout)
        seen_at = self._put(vertices_photo)
        weights = self._weights(photo.shape[:2], seen_at, self._put(vertices_camera), self._put(normals_camera))
        factor = reduction(layout.painting, vertices_photo, weights[:, 0].cpu().numpy())
        planes = self._put(reduced(photo, factor)).permute(2, 0, 1)[None].float()
        at = (seen_at[:, :2] + 0.5) / factor - 0.5
        albedo, irradiance = self._put(lighting.albedo), self._put(lighting.irradiance)
        if not delight:
            mean = (irradiance * weights).sum(0) / weights.sum().clamp_min(1e-12)
            irradiance = torch.where(weights.sum() > 0, mean, irradiance)
        colors = self._fill(_look_up(planes, at) / 255, weights, (albedo * irradiance).clamp(0, 1))
        parts = [at, weights, 255 * colors]
        if delight:
            for _ in range(LIGHT_STEPS):
                irradiance = self._around.means(irradiance)
            parts.append(1 / irradiance.clamp_min(LIGHT_MIN))
        return _paint(layout.size, place, torch.cat(parts, 1), planes)

    def _put(self, values: np.ndarray) -> Tensor:
        kind = np.int64 if values.dtype.kind == "i" else np.float32 if values.dtype.kind == "f" else values.dtype
        return torch.from_numpy(np.require(values, kind, ["C", "W"])).to(self._device)

    def _map(self, layout: UvLayout) -> _Map:
        if layout not in self._maps:
            (rows, left, shown), size = layout.painting.runs, layout.size
            starts = left + size * np.arange(size).repeat(np.diff(rows))
            texels = shown.repeat(np.diff(starts, append=size * size))
            empty = np.flatnonzero(texels < 0)
            self._maps[layout] = _Map(
                torch.from_numpy(texels.clip(0)).to(self._device),
                self._put(empty),
                self._put(~texels[empty]),
                self._put(layout.painting.triangles),
                self._put(layout.painting.planes),
            )
        return self._maps[layout]

    def _weights(
        self,
        photo_shape: tuple[int, ...],
        seen: Float[Tensor, "V 3"],
        camera: Float[Tensor, "V 3"],
        normals: Float[Tensor, "V 3"],
    ) -> Float[Tensor, "V 1"]:
        """Rate how well the photo shows each vertex; see `Visibility.weights`."""
        side, block = visibility.DEPTH_MAP_PX, visibility.BLOCK_PX
        low = seen[:, :2].amin(0)
        size = (seen[:, :2].amax(0) - low).amax()
        fitted = torch.cat([(seen[:, :2] - low) * ((side - 1) / size), seen[:, 2:]], 1)
        fragments = rasterize(fitted[None], self._triangles, side)
        nearness = interpolate(fragments, fitted[None, :, 2:].contiguous(), self._triangles)[..., 0]
        triangle = fragments.triangle
        opening = ((triangle >= 0) & self._opening_triangles[triangle.clamp_min(0)]).float()
        blocks = functional.max_pool2d(torch.stack([nearness, opening], 1), block)
        above, opened = functional.max_pool2d(blocks, 3, 1, 1)[0]
        column, row = fitted[:, :2].round().long().clamp(0, side - 1).unbind(1)
        at = row // block, column // block
        deepest = torch.minimum(
            1 / nearness[0, row, column].clamp_min(1e-6) + visibility.DEPTH_TOLERANCE_M,
            1 / above[at].clamp_min(1e-6) + visibility.OVERHANG_M,
        )
        height, width = photo_shape
        x, y = seen[:, 0] + 0.5, seen[:, 1] + 0.5
        weights = _smoothstep(torch.stack([x, y, width - x, height - y]).amin(0) / (visibility.RIM * size))
        ray = torch.stack([-camera[:, 0], -camera[:, 1], DISTANCE_M - camera[:, 2]], 1)
        cosine = (ray * normals).sum(1) / ray.square().sum(1).sqrt()
        inward = self._inward(nearness)[row // 2, column // 2] / side
        facing = _ramp(cosine, visibility.TURNED_AWAY, visibility.FACING)
        skin = weights * facing * _ramp(inward, visibility.OUTLINE, visibility.WITHIN)
        skin = torch.where(1 / fitted[:, 2] > deepest, 0, skin)
        rated = torch.where(self._openings & (opened[at] > 0), weights, skin)[:, None]
        feathered = rated
        for _ in range(visibility.FEATHER_STEPS):
            feathered = torch.minimum(feathered, self._within_seams.means(feathered))
        return torch.where(self._openings[:, None], rated, feathered)

    def _inward(self, nearness: Float[Tensor, "1 side side"]) -> Float[Tensor, "half half"]:
        """Measure how far each second pixel lies from where there is nothing, in pixels, as far as it matters."""
        filled = (nearness[:, None, ::2, ::2] > 0).float()
        around = functional.unfold(filled, 2 * REACH_PX + 1, padding=REACH_PX)[0]
        return torch.where(around > 0, 2.0 * REACH_PX, self._steps).amin(0).view(filled.shape[2:])

    def _fill(
        self, seen: Float[Tensor, "V 3"], weights: Float[Tensor, "V 1"], lit: Float[Tensor, "V 3"]
    ) -> Float[Tensor, "V 3"]:
        """Adapt the model's colors to the photo's `seen` ones; see `PhotoTexture`."""
        ratio = ((seen + DARK) / (lit + DARK)).log().clamp(-RATIO_LOG_MAX, RATIO_LOG_MAX)
        mean = (ratio * weights).sum(0) / weights.sum().clamp_min(1e-12)
        mirrored = MIRRORED * (1 - weights) * weights[self._mirror]
        known = weights + mirrored
        ratio = (weights * ratio + mirrored * ratio[self._mirror]) / known.clamp_min(1e-6)
        return (lit * (self._continued(ratio - mean, known) + mean).exp()).clamp(0, 1)

    def _continued(self, values: Float[Tensor, "V 3"], weights: Float[Tensor, "V 1"]) -> Float[Tensor, "V 3"]:
        """Carry values on over the surface; see `Continuation`."""
        mass = weights + DECAY
        diagonal = mass + self._smoothness * self._around.counts
        cluster_mass = self._of_cluster.sums(mass)
        groups = self._laplacian + torch.diag(self._of_group.sums(cluster_mass)[:, 0])
        group_inverse = torch.cholesky_inverse(cast(Tensor, torch.linalg.cholesky_ex(groups).L))
        # Both coarse levels as one matrix: a GPU multiplies by it faster than it starts what makes it up.
        coarse = group_inverse[self._group][:, self._group]
        coarse.diagonal().add_((1 / (cluster_mass + self._bonds))[:, 0])
        residual, solution = weights * values, torch.zeros_like(values)
        direction, before = torch.zeros_like(values), torch.ones_like(values[0])
        for _ in range(STEPS):
            by_cluster = coarse @ self._of_cluster.sums(residual)
            corrected = torch.addcdiv(by_cluster[self._cluster], residual, diagonal)
            energy = (residual * corrected).sum(0)
            direction = torch.addcmul(corrected, energy / before, direction)
            product = torch.sub(direction * diagonal, self._around.sums(direction), alpha=self._smoothness)
            step = energy / (direction * product).sum(0).clamp_min(1e-30)
            solution = torch.addcmul(solution, step, direction)
            residual = torch.addcmul(residual, step, product, value=-1)
            before = energy.clamp_min(1e-30)
        return solution


def _paint(
    size: int, place: _Map, attributes: Float[Tensor, "V K"], photo: Float[Tensor, "1 3 H W"]
) -> UInt8[np.ndarray, "size size 3"]:
    """Paint all texels; attributes as for `leanface.face.photo_texture`."""
    first, second, third = attributes[place.corners].unbind(1)
    to_second, to_third, slopes = second - first, third - first, place.planes[:, 2:, None]
    across, down = (slopes[:, i] * to_second + slopes[:, i + 2] * to_third for i in (0, 1))
    tables = torch.cat([place.planes[:, :2], first, across, down], 1)
    count = attributes.shape[1]
    texture = torch.empty((size * size, 3), dtype=torch.uint8, device=attributes.device)
    column = torch.arange(size, device=attributes.device)
    rows_at_once = max(1, TEXELS_AT_ONCE // size)
    for top in range(0, size, rows_at_once):
        bottom = min(top + rows_at_once, size)
        texels = slice(top * size, bottom * size)
        table = tables.index_select(0, place.shown[texels])
        values, right, below = (table[:, 2 + part * count :][:, :count] for part in range(3))
        row = torch.arange(top, bottom, device=attributes.device)
        x = column.repeat(bottom - top)[:, None] - table[:, :1]
        y = row.repeat_interleave(size)[:, None] - table[:, 1:2]
        value = torch.addcmul(torch.addcmul(values, x, right), y, below)
        weight = value[:, 2:3].clamp(0, 1)
        color = torch.lerp(value[:, 3:6], _look_up(photo, value[:, :2]), weight)
        if count > 6:
            color *= value[:, 6:]
        texture[texels] = color.clamp_(0, 255).add_(0.5).to(torch.uint8)
    texture[place.empty] = texture[place.source]
    # From page-locked memory the copy takes a third of the time; PyTorch keeps it for the next texture.
    painted = torch.empty(texture.shape, dtype=torch.uint8, pin_memory=texture.is_cuda)
    return painted.copy_(texture).view(size, size, 3).numpy()


def _look_up(photo: Float[Tensor, "1 3 H W"], at: Float[Tensor, "N 2"]) -> Float[Tensor, "N 3"]:
    """Look up colors bilinearly at places (x, y), pixel centers at integers; beyond the photo its edge."""
    last = torch.tensor(photo.shape[:1:-1], device=photo.device).sub(1).clamp_min(1)
    grid = (at * (2 / last) - 1)[None, None]
    return functional.grid_sample(photo, grid, padding_mode="border", align_corners=True)[0, :, 0].T


def _steps(reach: int) -> Float32[Tensor, "window 1"]:
    """List how far the places of a square window lie from its middle, by straight and diagonal steps of two pixels."""
    offsets = torch.arange(-reach, reach + 1).abs().float()
    down, across = torch.meshgrid(offsets, offsets, indexing="ij")
    return (2 * torch.maximum(down, across) + (2 * 2**0.5 - 2) * torch.minimum(down, across)).view(-1, 1)


def _ramp(values: Tensor, none: float, full: float) -> Tensor:
    return _smoothstep((values - none) / (full - none))


def _smoothstep(x: Tensor) -> Tensor:
    x = x.clamp(0, 1)
    return x * x * (3 - 2 * x)
