"""FP16's first layers by the same kernels as INT8's: on a Hopper GPU cuDNN's take a quarter of the network's time."""

import torch
from jaxtyping import Float16
from torch import Tensor, nn

from leanface.runtime.int8 import kernels
from leanface.runtime.int8.call import Call
from leanface.runtime.int8.executor import CHANNELS, FOLD_BLOCK, POOL_BLOCK, folded_stem, widened
from leanface.runtime.int8.tuning import Tile

TILE = Tile(128, 32, 64)
WIDE_TILE = Tile(128, 128, 64, 8, together=4)
"""Where a row has pixels in fours. They are taken as one, because what they read overlaps."""


class HalfStem(nn.Module):
    """A 7x7 convolution at stride 2 with bias, ReLU and 3x3 max pooling at stride 2.

    Args:
        conv: with its batch norm folded into it.
    """

    def __init__(self, conv: nn.Conv2d) -> None:
        super().__init__()
        weights = conv.weight.detach().float().numpy().transpose(0, 2, 3, 1)
        bias = torch.zeros(len(weights)) if conv.bias is None else conv.bias.detach().float()
        self._outputs = len(weights)
        self._weights: Tensor
        self._wide_weights: Tensor
        self._bias: Tensor
        self._table: Tensor
        runs = folded_stem(weights).reshape(len(weights), 4, -1)
        wide = widened(runs, WIDE_TILE.together, CHANNELS, WIDE_TILE.k)
        self.register_buffer("_weights", torch.from_numpy(runs).half())
        self.register_buffer("_wide_weights", torch.from_numpy(wide).half())
        self.register_buffer("_bias", bias)
        self.register_buffer("_table", (torch.arange(256) / 255).half())

    def forward(self, images: Tensor) -> Float16[Tensor, "batch channels height/4 width/4"]:
        """Compute the layer of uint8 (B,H,W,3), or float32 (B,3,H,W) in [0,1]; channels last."""
        height, width = images.shape[1:3] if images.dtype == torch.uint8 else images.shape[2:]
        height, width, outputs = height // 2, width // 2, self._outputs

        def empty(*shape: int) -> Tensor:
            return torch.empty(shape, dtype=torch.float16, device=images.device)

        folded = empty(len(images) * (height + 3) * (width + 3) + 1, CHANNELS)
        wide = empty(len(images), height, width, outputs)
        pooled = empty(len(images), -(-height // 2), -(-width // 2), outputs)
        for call in (
            self._fold(images, folded, height, width),
            self._convolve(folded, wide),
            _pool(wide, pooled),
        ):
            call.queue()
        return pooled.permute(0, 3, 1, 2)

    def _fold(self, images: Tensor, folded: Tensor, height: int, width: int) -> Call:
        count = len(folded) - 1
        grid = (-(-len(folded) // FOLD_BLOCK),)
        arguments: dict[str, Tensor | int | float] = {"pixels": images, "target": folded, "PIXELS": count}
        constants = {"ZERO": 0, "HEIGHT": height, "WIDTH": width, "CHAINED": False, "BLOCK": FOLD_BLOCK}
        if images.dtype == torch.uint8:
            return Call(kernels.fold_bytes, grid, {**arguments, "table": self._table}, constants, 4)
        unused = {"LOW": 0.0, "QUANTIZED": False}
        return Call(kernels.fold_floats, grid, {**arguments, "scale": 1.0}, {**constants, **unused}, 4)

    def _convolve(self, folded: Tensor, wide: Tensor) -> Call:
        _, height, width, outputs = wide.shape
        tile = TILE if width % WIDE_TILE.together else WIDE_TILE
        weights = self._weights if tile is TILE else self._wide_weights
        outputs *= tile.together
        pixels = wide.numel() // outputs
        return Call(
            kernels.half_convolution,
            (-(-pixels // tile.m) * -(-outputs // tile.n),),
            {"source": folded, "weights": weights, "bias": self._bias, "target": wide, "PIXELS": pixels},
            {
                "HEIGHT": height,
                "WIDTH": width // tile.together,
                "OUTPUTS": outputs,
                "TOGETHER": tile.together,
                "IN_HEIGHT": height + 3,
                "IN_WIDTH": width + 3,
                "IN_CHANNELS": CHANNELS,
                "ROWS": 4,
                "BLOCKS": weights.shape[2] // tile.k,
                "BLOCK_M": tile.m,
                "BLOCK_N": tile.n,
                "BLOCK_K": tile.k,
            },
            tile.warps,
            tile.stages,
        )


def _pool(wide: Tensor, pooled: Tensor) -> Call:
    _, in_height, in_width, channels = wide.shape
    return Call(
        kernels.max_pool,
        (-(-pooled.numel() // POOL_BLOCK),),
        {"source": wide, "target": pooled, "COUNT": pooled.numel()},
        {
            "HEIGHT": pooled.shape[1],
            "WIDTH": pooled.shape[2],
            "BORDER": 0,
            "IN_HEIGHT": in_height,
            "IN_WIDTH": in_width,
            "IN_BORDER": 0,
            "CHANNELS": channels,
            "CHAINED": False,
            "BLOCK": POOL_BLOCK,
        },
        4,
    )
