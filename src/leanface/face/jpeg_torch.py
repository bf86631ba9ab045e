"""The same JPEG files as by `leanface.face.jpeg`, by PyTorch: a GPU transforms, codes and places all blocks at once.

Each row of blocks begins behind a restart marker, so that none has to wait for another. Tables are Pillow's; rounding
differs by a level or two.

Source: ITU-T T.81, A.3 (transform and quantization), B.2 (headers), F.1.2 (Huffman coding) and K.2.
"""

import math
from functools import cache
from typing import NamedTuple, cast

import numpy as np
import torch
from jaxtyping import Bool, Float, Int, UInt8
from torch import Tensor
from torch.nn import functional

from leanface.face.jpeg import BLOCK_PX, encode_whole, header_of, joined, segments

QUANTIZATION, HUFFMAN = 0xDB, 0xC4
"""Markers of tables."""

LUMA, BLOCKS = 4, 6
"""A square of BLOCK_PX is coded as so many blocks of brightness, and in all; its colors have half the resolution."""

END, ZEROS = 0x00, 0xF0
"""Symbols: the rest of the block is 0, and so are the next 16 coefficients."""

YCC_FROM_RGB = ((0.299, 0.587, 0.114), (-0.168736, -0.331264, 0.5), (0.5, -0.418688, -0.081312))
"""Of JFIF."""


class _Tables(NamedTuple):
    """How blocks of brightness [0] and color [1] become bits.

    Attributes:
        transform: from pixels to quantized coefficients in the file's order, before rounding.
        code: of a block's mean [0] and its other coefficients [1], by symbol; `length` in bits.
    """

    transform: Float[Tensor, "2 64 64"]
    code: Int[Tensor, "2 2 256"]
    length: Int[Tensor, "2 2 256"]


@torch.inference_mode()
def encode_jpeg(pixels: UInt8[np.ndarray, "H W 3"], quality: int, device: torch.device) -> bytes:
    """Encode an RGB picture.

    Args:
        quality: of Pillow, 1 to 95.

    Raises:
        torch.OutOfMemoryError: the device has too little memory, of which a pixel takes some 50 bytes, and up
            to 200 in noise.
    """
    height, width = pixels.shape[:2]
    sample = encode_whole(quality, np.zeros((BLOCK_PX, BLOCK_PX, 3), np.uint8))
    tables = _tables(sample, device)
    coefficients = _coefficients(torch.from_numpy(pixels).to(device), tables.transform)
    content, ends = _coded(coefficients, tables)
    rows = [content[start:end].replace(b"\xff", b"\xff\0") for start, end in zip([0, *ends], ends, strict=False)]
    return joined(header_of(sample, width, height, coefficients.shape[1])[0], rows)


@cache
def _tables(sample: bytes, device: torch.device) -> _Tables:
    """Read the tables of a picture's header."""
    divisors, code, length = torch.ones(2, 64), torch.zeros(2, 2, 256).long(), torch.zeros(2, 2, 256).long()
    for marker, start, end in segments(sample):
        if marker == QUANTIZATION:
            divisors[sample[start + 4]] = torch.tensor(list(sample[start + 5 : end]))
        if marker == HUFFMAN:
            mean_first, kind = divmod(sample[start + 4], 16)
            symbols, next_code = iter(sample[start + 21 : end]), 0
            for bits, count in enumerate(sample[start + 5 : start + 21], 1):
                for _, symbol in zip(range(count), symbols, strict=False):
                    code[kind, mean_first, symbol], length[kind, mean_first, symbol] = next_code, bits
                    next_code += 1
                next_code *= 2
    order = sorted(range(64), key=lambda at: (at // 8 + at % 8, at // 8 if (at // 8 + at % 8) % 2 else at % 8))
    u, x = torch.meshgrid(torch.arange(8.0), torch.arange(8.0), indexing="ij")
    cosines = torch.where(u > 0, 0.5, 0.125**0.5) * torch.cos((2 * x + 1) * u * (math.pi / 16))
    transform = torch.kron(cosines, cosines)[order] / divisors[:, :, None]
    return _Tables(*(table.to(device) for table in (transform, code, length)))


def _coefficients(
    pixels: UInt8[Tensor, "H W 3"], transform: Float[Tensor, "2 64 64"]
) -> Int[Tensor, "rows columns 6 64"]:
    """Transform all blocks, in the order of the file; beyond the picture lies its edge."""
    height, width = pixels.shape[:2]
    planes = functional.pad(
        pixels.permute(2, 0, 1).float(), (0, -width % BLOCK_PX, 0, -height % BLOCK_PX), mode="replicate"
    )
    ycc = torch.einsum("cd,dhw->chw", planes.new_tensor(YCC_FROM_RGB), planes)
    rows, columns = (side // BLOCK_PX for side in planes.shape[1:])
    luma = (ycc[0] - 128).view(rows, 2, 8, columns, 2, 8).permute(0, 3, 1, 4, 2, 5).reshape(rows, columns, LUMA, 64)
    chroma = functional.avg_pool2d(ycc[1:], 2).view(2, rows, 8, columns, 8).permute(1, 3, 0, 2, 4)
    parts = luma @ transform[0].T, chroma.reshape(rows, columns, BLOCKS - LUMA, 64) @ transform[1].T
    return torch.cat(parts, 2).round().int()


def _coded(coefficients: Int[Tensor, "rows columns 6 64"], tables: _Tables) -> tuple[bytes, list[int]]:
    """Return the codes, each row's filled up to whole bytes, and where each row ends."""
    rows, columns = coefficients.shape[:2]
    in_row = columns * BLOCKS
    for part in (slice(0, LUMA), slice(LUMA, LUMA + 1), slice(LUMA + 1, BLOCKS)):  # means are told by their steps
        means = functional.pad(coefficients[:, :, part, 0].reshape(rows, -1), (1, 0))
        coefficients[:, :, part, 0] = means.diff().view(rows, columns, -1)
    # A 65th place for the symbol of the block's end, which stands unless the last coefficient does.
    values = functional.pad(coefficients.view(-1, 64), (0, 1))
    coded: Bool[Tensor, "blocks 65"] = values != 0
    coded[:, 0], coded[:, 64] = True, values[:, 63] == 0
    at = coded.view(-1).nonzero()[:, 0]
    block, place = at // 65, at % 65
    value = values.view(-1)[at].long()
    inner = (place > 0) & (place < 64)
    zeros = torch.where(inner, place - place.roll(1) - 1, 0)
    size = torch.frexp(value.abs().float()).exponent.long()
    kind, rest = (block % BLOCKS >= LUMA).long(), (place > 0).long()
    symbol = zeros % 16 << 4 | size
    code = tables.code[kind, rest, symbol] << size | torch.where(value < 0, value + (1 << size) - 1, value)
    length = tables.length[kind, rest, symbol] + size
    # Up to three symbols of 16 zeros before it.
    skips, skip, skip_length = zeros // 16, tables.code[kind, 1, ZEROS], tables.length[kind, 1, ZEROS]
    prefix = torch.stack([torch.where(skips > step, skip << step * skip_length, 0) for step in range(3)]).sum(0)
    ends = (length + skips * skip_length).cumsum(0)
    row_ends = ends[torch.searchsorted(block, torch.arange(1, rows + 1, device=at.device) * in_row) - 1]
    row_bits = row_ends.diff(prepend=row_ends.new_zeros(1))
    row_bytes = (row_bits + 7) // 8
    byte_ends = row_bytes.cumsum(0)
    ends += (8 * (byte_ends - row_bytes) - row_ends + row_bits)[block // in_row]
    spare = 8 * row_bytes - row_bits
    places = cast(list[int], byte_ends.tolist())
    words = torch.zeros(places[-1] // 4 + 2, dtype=torch.long, device=at.device)
    _put(words, code, length, ends)
    _put(words, prefix, skips * skip_length, ends - length)
    _put(words, (1 << spare) - 1, spare, 8 * byte_ends)
    shifts = torch.arange(24, -1, -8, device=at.device)
    content = (words[:, None] >> shifts & 0xFF).to(torch.uint8).view(-1)[: places[-1]]
    return content.cpu().numpy().tobytes(), places


def _put(
    words: Int[Tensor, " words"], bits: Int[Tensor, " N"], length: Int[Tensor, " N"], ends: Int[Tensor, " N"]
) -> None:
    """Write numbers of up to 33 bits into words of 32, each so that it ends before bit `ends` of them all."""
    begins = ends - length
    placed = bits << (64 - begins % 32 - length).clamp_max(63)  # nothing, of length 0, may lie anywhere
    words.index_add_(0, begins // 32, placed >> 32 & 0xFFFFFFFF)
    words.index_add_(0, begins // 32 + 1, placed & 0xFFFFFFFF)
