"""The INT8 network for images of one size: its memory on the GPU and its kernels, in order."""

import math
from collections import defaultdict
from collections.abc import Callable
from dataclasses import dataclass, field

import numpy as np
import torch
from jaxtyping import Int8, Shaped
from torch import Tensor

from leanface.errors import BackendError
from leanface.runtime.int8 import kernels
from leanface.runtime.int8.call import Call
from leanface.runtime.int8.plan import IMAGE, Convolution, FeatureMap, MaxPool, Plan
from leanface.runtime.int8.tuning import Problem, Tile

CHANNELS = 16
"""Channels lie in memory in multiples of so many."""

SLACK_BYTES = 256
"""Behind each map: the last block of a pixel's run may reach beyond it."""

LIMIT_BYTES = 2**31
"""Of a map: what 32-bit offsets reach."""

FEW_PIXELS = 8 * 224 * 224
"""So many pixels give no multiprocessor many blocks."""

FOLD_BLOCK, POOL_BLOCK = 128, 2048
HEADS_TILE = Tile(16, 32, 128)


def padded(channels: int, multiple: int = CHANNELS) -> int:
    """Round up."""
    return -(-channels // multiple) * multiple


def folded_stem(weights: Shaped[np.ndarray, "outputs 7 7 3"]) -> Shaped[np.ndarray, "outputs 4 4 16"]:
    """Weights of a 7x7 convolution at stride 2 for an image whose squares of 2x2 pixels became channels."""
    wide = np.zeros((len(weights), 8, 8, weights.shape[3]), weights.dtype)
    wide[:, 1:, 1:] = weights
    squares = wide.reshape(len(weights), 4, 2, 4, 2, -1).transpose(0, 1, 3, 2, 4, 5).reshape(len(weights), 4, 4, -1)
    return np.pad(squares, ((0, 0), (0, 0), (0, 0), (0, CHANNELS - squares.shape[3])))


def widened(
    runs: Shaped[np.ndarray, "outputs rows run"], together: int, apart: int, depth: int
) -> Shaped[np.ndarray, "more_outputs rows longer_run"]:
    """Weights of neighboring pixels that are taken as one: each has outputs of its own, which read further on.

    Args:
        together: the number of pixels.
        apart: how much further along the run each reads than the one before.
        depth: the run is filled up with zeros to a multiple of it.
    """
    outputs, rows, run = runs.shape
    wide = np.zeros((together, outputs, rows, padded(run + (together - 1) * apart, depth)), runs.dtype)
    for index, own in enumerate(wide):
        own[:, :, index * apart : index * apart + run] = runs
    return wide.reshape(together * outputs, rows, -1)


@dataclass
class Weights:
    """A plan's weights on a device, packed as the kernels' tiles need them; shared by all sizes and streams."""

    plan: Plan
    device: torch.device
    _packed: dict[tuple[str, int, int], Tensor] = field(default_factory=dict[tuple[str, int, int], Tensor])
    _runs: dict[str, Int8[np.ndarray, "outputs rows run"]] = field(
        default_factory=dict[str, Int8[np.ndarray, "outputs rows run"]]
    )
    _parameters: dict[tuple[str, int], Tensor] = field(default_factory=dict[tuple[str, int], Tensor])

    def matrix(self, step: Convolution, tile: Tile) -> Tensor:
        """Return what `kernels.convolution` takes as weights; outputs are those of `runs` for each pixel of a tile."""
        key = step.name, tile.k, tile.together
        if key not in self._packed:
            packed = widened(self.runs(step), tile.together, self.apart(step), tile.k)
            self._packed[key] = torch.from_numpy(packed).to(self.device)
        return self._packed[key]

    def apart(self, step: Convolution) -> int:
        """Return by how many bytes the runs of neighboring pixels differ."""
        return CHANNELS if step.source.stride == 1 else step.stride * padded(step.weights.shape[3])

    def runs(self, step: Convolution) -> Int8[np.ndarray, "outputs rows run"]:
        """What is multiplied for each row of the kernel: the channels of neighboring pixels in memory's order."""
        if step.name not in self._runs:
            kernel = folded_stem(step.weights) if step.source.stride == 1 else step.weights
            outputs, rows, columns, inputs = kernel.shape
            wide = np.zeros((padded(outputs), rows, columns, padded(inputs)), np.int8)
            wide[:outputs, :, :, :inputs] = kernel
            self._runs[step.name] = wide.reshape(len(wide), rows, -1)
        return self._runs[step.name]

    def parameters(self, step: Convolution, together: int) -> Tensor:
        """Return what `kernels.convolution` takes by this name."""
        if (step.name, together) not in self._parameters:
            unit, zero = (step.target.levels.scale, step.target.levels.zero) if step.target else (1.0, 0)
            bias = step.bias.astype(np.float64) / unit + zero
            if step.residual is not None:
                bias -= step.residual.levels.zero * step.residual.levels.scale / unit
            sums = self.runs(step).sum((1, 2), dtype=np.int64) * -step.source.levels.zero
            once = self._pack(sums, step.scale.astype(np.float64) / unit, bias, len(sums))
            self._parameters[step.name, together] = once.repeat(together, 1)
        return self._parameters[step.name, together]

    def heads(self) -> tuple[Tensor, Tensor]:
        """Return weights and parameters, as `kernels.heads` takes them."""
        heads = self.plan.heads
        if ("heads", 0, 1) not in self._packed:
            count, features = heads.weights.shape
            packed = np.zeros((padded(count, HEADS_TILE.n), padded(features, HEADS_TILE.k)), np.int8)
            packed[:count, :features] = heads.weights
            self._packed["heads", 0, 1] = torch.from_numpy(packed).to(self.device)
            sums = heads.weights.sum(1, dtype=np.int64) * -heads.levels.zero
            self._parameters["heads", 1] = self._pack(sums, heads.scale, heads.bias, len(packed))
        return self._packed["heads", 0, 1], self._parameters["heads", 1]

    def table(self) -> Tensor:
        """The int8 level of each value of a pixel: that of the value over 255, as the file quantizes it."""
        if ("table", 0, 1) not in self._packed:
            levels = self.plan.image.levels
            pixels = np.arange(256, dtype=np.float32) / np.float32(255)
            table = np.rint(pixels / np.float32(levels.scale)) + levels.zero
            self._packed["table", 0, 1] = torch.from_numpy(table.clip(-128, 127).astype(np.int8)).to(self.device)
        return self._packed["table", 0, 1]

    def _pack(self, sums: np.ndarray, factors: np.ndarray, bias: np.ndarray, rows: int) -> Tensor:
        """Pack the three into int32 (rows, 4) on the device, floats as their bits, and 0."""
        packed = np.zeros((rows, 4), np.int32)
        packed[: len(sums), 0] = sums
        packed[: len(factors), 1] = factors.astype(np.float32).view(np.int32)
        packed[: len(bias), 2] = bias.astype(np.float32).view(np.int32)
        return torch.from_numpy(packed).to(self.device)


@dataclass(frozen=True)
class _Layout:
    """A map in memory: the pixels that it has, and a border of zeros around them."""

    map: FeatureMap
    height: int
    width: int
    border: int

    @property
    def channels(self) -> int:
        return padded(self.map.channels)

    @property
    def full_height(self) -> int:
        return self.height + 2 * self.border

    @property
    def full_width(self) -> int:
        return self.width + 2 * self.border

    def size_bytes(self, images: int) -> int:
        return images * self.full_height * self.full_width * self.channels

    def like(self, other: "_Layout") -> bool:
        """Tell whether both have the same border in the same places."""
        shapes = [(one.height, one.width, one.channels, one.border, one.map.levels.zero) for one in (self, other)]
        return shapes[0] == shapes[1]


class _Arena:
    """Places in one block of memory for what is needed at different times: the first that is free."""

    def __init__(self) -> None:
        self.size = 0
        self._taken: list[tuple[slice, int]] = []

    def place(self, length: int, now: int, until: int) -> slice:
        """Room from step `now` to step `until`, which may still read it while another map is written."""
        length = padded(length, SLACK_BYTES)
        self._taken = sorted((taken for taken in self._taken if taken[1] >= now), key=lambda taken: taken[0].start)
        begin = 0
        for taken, _ in self._taken:
            if begin + length <= taken.start:
                break
            begin = max(begin, taken.stop)
        self._taken.append((slice(begin, begin + length), until))
        self.size = max(self.size, begin + length)
        return self._taken[-1][0]


class Executor:
    """Computes up to `images` images of one size at a time, in the order of the current stream.

    Args:
        tile: chooses the tile of each convolution.
        share_memory: let maps that are not needed at the same time lie in the same memory; else all stay readable.
        chained: let each kernel begin while the one before it finishes, which GPUs from Hopper on can.

    Raises:
        BackendError: the images are too large.
    """

    def __init__(
        self,
        weights: Weights,
        height: int,
        width: int,
        images: int,
        tile: Callable[[Problem], Tile],
        *,
        share_memory: bool = True,
        chained: bool = False,
    ) -> None:
        self.images = images
        self.plan, self._weights, self._device = weights.plan, weights, weights.device
        self._height, self._width = height, width
        self._tile, self._share, self._chained = tile, share_memory, chained
        self._layouts = self._lay_out()
        if max(layout.size_bytes(images) for layout in self._layouts.values()) >= LIMIT_BYTES:
            raise BackendError(f"{images} images of {height}x{width} px need feature maps of more than 2 GB each.")
        self.maps = self._allocate()
        pitch = padded(self.plan.features, HEADS_TILE.k)
        self._features = torch.zeros((images, pitch), dtype=torch.int8, device=self._device)

    def run(self, pixels: Tensor, coefficients: Tensor) -> None:
        """Queue the network.

        Args:
            pixels: uint8 (N,H,W,3), or float32 (N,3,H,W) in [0,1], on the device, contiguous.
            coefficients: float32 (N,outputs), on the device, contiguous; written.
        """
        for call in self.calls(pixels, coefficients).values():
            call.queue()

    def calls(self, pixels: Tensor, coefficients: Tensor) -> dict[str, Call]:
        """Return the network's kernels in order, by the name of what they compute; arguments as for `run`."""
        steps = {
            step.name: self._pool(step, len(pixels))
            if isinstance(step, MaxPool)
            else self.convolution(step, self._tile(self.problem(step, len(pixels))), len(pixels))
            for step in self.plan.steps
        }
        return {"image": self._fold(pixels), **steps, "heads": self._heads(coefficients)}

    def shares_l1(self, images: int) -> bool:
        """Whether the kernels for so many images are to have the same split of L1 memory; see `call.share_l1`."""
        return self._chained and images * self._height * self._width <= FEW_PIXELS

    def _chaining(self, images: int) -> int:
        """Return what kernels know as CHAINED."""
        return int(self._chained) + int(self.shares_l1(images))

    def size_bytes(self) -> int:
        """Return the memory of all maps together, without the weights."""
        tensors = [self._features, *self.maps.values()]
        return sum({t.untyped_storage().data_ptr(): t.untyped_storage().nbytes() for t in tensors}.values())

    def traffic_bytes(self, images: int) -> dict[str, int]:
        """Return what each of `calls` reads and writes for so many images: maps, with their borders, and weights."""
        sizes = {name: layout.size_bytes(images) for name, layout in self._layouts.items()}
        folded = images * (self._height // 2 + 3) * (self._width // 2 + 3) * CHANNELS
        features, heads = images * self._features.shape[1], self.plan.heads.weights.size
        sizes[IMAGE] = folded
        found = {"image": folded + 3 * images * self._height * self._width}
        for step in self.plan.steps:
            maps = [step.source, step.target, step.residual if isinstance(step, Convolution) else None]
            found[step.name] = sum(sizes[map.name] for map in maps if map is not None)
            found[step.name] += step.weights.size if isinstance(step, Convolution) else 0
            found[step.name] += features if step.target is None else 0
        return found | {"heads": features + heads + 4 * images * self.plan.outputs}

    def levels(self, name: str) -> Tensor:
        """Return a map's levels (images, height, width, channels), without border and padding: a view."""
        layout = self._layouts[name]
        shape = (self.images, layout.full_height, layout.full_width, layout.channels)
        whole = self.maps[name][: layout.size_bytes(self.images)].view(shape)
        border = slice(layout.border, -layout.border or None)
        return whole[:, border, border, : layout.map.channels]

    def folded(self) -> Tensor:
        """Return the image's levels (images, height/2, width/2, 12), squares of 2x2 pixels as channels: a view."""
        shape = (self.images, self._height // 2 + 3, self._width // 2 + 3, CHANNELS)
        return self.maps[IMAGE][: math.prod(shape)].view(shape)[:, 2:-1, 2:-1, :12]

    def features(self) -> Tensor:
        """Return the levels of the mean features (images, channels): a view."""
        return self._features[:, : self.plan.features]

    def _lay_out(self) -> dict[str, _Layout]:
        borders: defaultdict[str, int] = defaultdict(int)
        for step in self.plan.steps:
            if isinstance(step, Convolution):
                borders[step.source.name] = max(borders[step.source.name], step.padding)
        maps = [step.target for step in self.plan.steps if step.target is not None]
        return {
            map.name: _Layout(map, -(-self._height // map.stride), -(-self._width // map.stride), borders[map.name])
            for map in maps
        }

    def _allocate(self) -> dict[str, Tensor]:
        """Allocate the folded image and each map."""
        last: dict[str, int] = {}
        for index, step in enumerate(self.plan.steps):
            last[step.source.name] = index
            if isinstance(step, Convolution) and step.residual is not None:
                last[step.residual.name] = index
        arena = _Arena()
        bordered: list[tuple[_Layout, int, Tensor]] = []  # with their last use
        maps: dict[str, Tensor] = {}
        folded = self.images * (self._height // 2 + 3) * (self._width // 2 + 3) * CHANNELS
        places = {IMAGE: arena.place(folded + SLACK_BYTES, 0, last[IMAGE])}
        for index, step in enumerate(self.plan.steps):
            if step.target is None:
                continue
            name, layout, until = step.target.name, self._layouts[step.target.name], last.get(step.target.name, index)
            length = layout.size_bytes(self.images) + SLACK_BYTES
            if not layout.border:
                places[name] = arena.place(length, index, until)
                continue
            # Its border must stay: only maps of the same kind take turns in it.
            free = next((i for i, (other, end, _) in enumerate(bordered) if layout.like(other) and end < index), None)
            if free is None or not self._share:
                maps[name] = torch.full((length,), layout.map.levels.zero, dtype=torch.int8, device=self._device)
            else:
                maps[name] = bordered.pop(free)[2]
            bordered.append((layout, until, maps[name]))
        if not self._share:
            return maps | {name: self._empty(place.stop - place.start) for name, place in places.items()}
        memory = self._empty(arena.size)
        return maps | {name: memory[place] for name, place in places.items()}

    def _empty(self, length: int) -> Tensor:
        return torch.empty(length, dtype=torch.int8, device=self._device)

    def _fold(self, pixels: Tensor) -> Call:
        levels, height, width = self.plan.image.levels, self._height // 2, self._width // 2
        count = len(pixels) * (height + 3) * (width + 3)
        arguments: dict[str, Tensor | int | float] = {"pixels": pixels, "target": self.maps[IMAGE], "PIXELS": count}
        constants = {"ZERO": levels.zero, "HEIGHT": height, "WIDTH": width, "BLOCK": FOLD_BLOCK}
        constants["CHAINED"] = self._chaining(len(pixels))
        grid = (-(-(count + 1) // FOLD_BLOCK),)
        # It follows a copy, which is no kernel: it is launched as usual, and only what comes next may begin early.
        if pixels.dtype == torch.uint8:
            return Call(kernels.fold_bytes, grid, {**arguments, "table": self._weights.table()}, constants, 4)
        rounding = {"LOW": -128.0, "QUANTIZED": True}
        return Call(kernels.fold_floats, grid, {**arguments, "scale": levels.scale}, {**constants, **rounding}, 4)

    def _pool(self, step: MaxPool, images: int) -> Call:
        source, target = self._layouts[step.source.name], self._layouts[step.target.name]
        count = images * target.height * target.width * target.channels
        return Call(
            kernels.max_pool,
            (-(-count // POOL_BLOCK),),
            {"source": self.maps[step.source.name], "target": self.maps[step.target.name], "COUNT": count},
            {
                "HEIGHT": target.height,
                "WIDTH": target.width,
                "BORDER": target.border,
                "IN_HEIGHT": source.height,
                "IN_WIDTH": source.width,
                "IN_BORDER": source.border,
                "CHANNELS": target.channels,
                "CHAINED": self._chaining(images),
                "BLOCK": POOL_BLOCK,
            },
            4,
            chained=self._chained,
        )

    def _heads(self, coefficients: Tensor) -> Call:
        tile, count = HEADS_TILE, len(self.plan.heads.weights)
        weights, parameters = self._weights.heads()
        return Call(
            kernels.heads,
            (-(-len(coefficients) // tile.m), -(-count // tile.n)),
            {
                "features": self._features,
                "weights": weights,
                "parameters": parameters,
                "coefficients": coefficients,
                "IMAGES": len(coefficients),
            },
            {
                "COUNT": count,
                "BLOCKS": self._features.shape[1] // tile.k,
                "CHAINED": self._chaining(len(coefficients)),
                **_blocks(tile),
            },
            tile.warps,
            tile.stages,
            self._chained,
        )

    def problem(self, step: Convolution, images: int) -> Problem:
        """Return what a convolution's tile is chosen for."""
        outputs, rows, run = self._weights.runs(step).shape
        height, width = self._result_size(step)
        return Problem(
            pixels=height * width * (1 if step.target is None else images),
            outputs=outputs,
            rows=rows,
            run=run,
            residual=step.residual is not None,
            mean=step.target is None,
            images=images,
            apart=self._weights.apart(step),
            together=self._together(step, outputs, run, width),
        )

    def _together(self, step: Convolution, outputs: int, run: int, width: int) -> int:
        """Return how many neighbors at most can be taken as one pixel: their reading overlaps, their results adjoin."""
        overlap = run > self._weights.apart(step)
        if not overlap or step.target is None or step.residual is not None or self._layouts[step.target.name].border:
            return 1
        return next(count for count in (4, 2, 1) if width % count == 0 and (count == 1 or count * outputs <= 256))

    def _result_size(self, step: Convolution) -> tuple[int, int]:
        stride = step.source.stride * step.stride
        return -(-self._height // stride), -(-self._width // stride)

    def convolution(self, step: Convolution, tile: Tile, images: int) -> Call:
        """Describe a convolution's kernel for the first `images` images."""
        problem = self.problem(step, images).widened(tile.together)
        height, width = self._result_size(step)
        source = self.maps[step.source.name]
        arguments: dict[str, Tensor | int | float] = {
            "source": source,
            "weights": self._weights.matrix(step, tile),
            "parameters": self._weights.parameters(step, tile.together),
            "residual": source,  # where nothing is added it is not read
            "residual_factor": 0.0,
        }
        constants: dict[str, int | float | bool] = {
            "HEIGHT": height,
            "WIDTH": width // tile.together,
            "OUTPUTS": problem.outputs,
            "ROWS": problem.rows,
            "BLOCKS": -(-problem.run // tile.k),
            "RESIDUAL_BORDER": -1,
            "CHAINED": self._chaining(images),
            **_blocks(tile),
            **self._source_geometry(step, height, width, tile.together),
        }
        if step.residual is not None:
            arguments["residual"] = self.maps[step.residual.name]
            arguments["residual_factor"] = step.residual.levels.scale / (step.target.levels.scale if step.target else 1)
            constants["RESIDUAL_BORDER"] = self._layouts[step.residual.name].border
        columns = -(-problem.outputs // tile.n)
        if step.target is None:
            levels = self.plan.heads.levels
            arguments |= {"features": self._features, "scale": levels.scale}
            constants |= {"RELU": step.relu, "PITCH": self._features.shape[1], "ZERO": levels.zero, "LOW": -128.0}
            return Call(
                kernels.convolution_mean,
                (images * columns,),
                arguments,
                constants,
                tile.warps,
                tile.stages,
                self._chained,
            )
        arguments |= {"target": self.maps[step.target.name], "PIXELS": problem.pixels}
        constants["OUT_BORDER"] = self._layouts[step.target.name].border
        constants["LOW"] = float(step.target.levels.zero if step.relu else -128)
        constants["REPEATS"] = tile.repeats
        grid = (-(-problem.pixels // (tile.m * tile.repeats)) * columns,)
        return Call(kernels.convolution, grid, arguments, constants, tile.warps, tile.stages, self._chained)

    def _source_geometry(self, step: Convolution, height: int, width: int, together: int) -> dict[str, int]:
        """Describe how the kernel steps through what it reads."""
        if step.source.stride == 1:  # the folded image, over which the first convolution has stride 1
            full_height, full_width, border, channels, stride = height + 3, width + 3, 0, CHANNELS, 1
        else:
            layout = self._layouts[step.source.name]
            full_height, full_width, channels = layout.full_height, layout.full_width, layout.channels
            border, stride = layout.border - step.padding, step.stride
        return {
            "IN_HEIGHT": full_height,
            "IN_WIDTH": full_width,
            "IN_BORDER": border,
            "IN_CHANNELS": channels,
            "DOWN": stride,
            "ACROSS": stride * together,
        }


def _blocks(tile: Tile) -> dict[str, int]:
    return {"BLOCK_M": tile.m, "BLOCK_N": tile.n, "BLOCK_K": tile.k}
