"""A bundle's weights at half the size: rounded to float16 where they were made, so that nothing is lost on the way.

Only convolutions' weights: batch norms, biases and quantizers' ranges, which have a value per channel, stay float32.
"""

import json
from math import prod
from pathlib import Path
from typing import Any

import numpy as np

from leanface.bundle import WEIGHTS
from leanface.errors import ArtifactError
from leanface.files import atomic_write

LENGTH_BYTES = 8
"""A safetensors file begins with the length of its JSON header, which is followed by the tensors' bytes."""


def is_bundle(folder: Path) -> bool:
    return (folder / WEIGHTS).is_file()


def round_bundle(folder: Path) -> None:
    """Round the weights on disk to values that `shrink` keeps; a second time changes nothing.

    Raises:
        ArtifactError: a weight is too large for float16.
    """
    path = folder / WEIGHTS
    atomic_write(path, expand(shrink(path.read_bytes())))


def shrink(contents: bytes) -> bytes:
    """A safetensors file with the large tensors' values in float16, under its unchanged header; see `expand`.

    Raises:
        ArtifactError: a weight is too large for float16.
    """
    start, ranges = _ranges(contents)
    parts = [contents[:start]]
    for name, low, high, halved in ranges:
        part = contents[start + low : start + high]
        if halved:
            with np.errstate(over="ignore"):
                values = np.frombuffer(part, "<f4").astype("<f2")
            if not np.isfinite(values).all():
                raise ArtifactError(f"{name} has weights that are not finite in float16: train again, or keep float32.")
            part = values.tobytes()
        parts.append(part)
    return b"".join(parts)


def expand(contents: bytes) -> bytes:
    """The file that `shrink` was given, if its values were rounded."""
    at, ranges = _ranges(contents)
    parts = [contents[:at]]
    for _, low, high, halved in ranges:
        length = (high - low) // 2 if halved else high - low
        part = contents[at : at + length]
        parts.append(np.frombuffer(part, "<f2").astype("<f4").tobytes() if halved else part)
        at += length
    return b"".join(parts)


def _ranges(contents: bytes) -> tuple[int, list[tuple[str, int, int, bool]]]:
    """Where the tensors begin; of each its name, its range from there in the full file, and whether it is halved."""
    start = LENGTH_BYTES + int.from_bytes(contents[:LENGTH_BYTES], "little")
    header = json.loads(contents[LENGTH_BYTES:start])
    header.pop("__metadata__", None)
    tensors = sorted(header.items(), key=lambda item: item[1]["data_offsets"])
    return start, [(name, *tensor["data_offsets"], _is_halved(tensor)) for name, tensor in tensors]


def _is_halved(tensor: dict[str, Any]) -> bool:
    shape: list[int] = tensor["shape"]
    return tensor["dtype"] == "F32" and prod(shape) > max(shape, default=1)
