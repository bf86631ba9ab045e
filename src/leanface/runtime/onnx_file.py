"""Read what an exported ONNX file says of itself: a few fields, without the package onnx.

Source: protobuf's wire format (protobuf.dev/programming-guides/encoding) and onnx.proto (ONNX IR version 3 and later).
"""

import json
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

from leanface.device import has_vnni
from leanface.errors import ArtifactError
from leanface.networks.interface import METADATA_PREFIX

VARINT, FIXED64, BYTES, FIXED32 = 0, 1, 2, 5
"""Kinds of fields: what their bytes hold."""

MODEL_GRAPH, MODEL_METADATA, ENTRY_KEY, ENTRY_VALUE = 7, 14, 1, 2
GRAPH_INPUT, VALUE_TYPE, TYPE_TENSOR, TENSOR_SHAPE, SHAPE_DIMENSION, DIMENSION_NAME = 11, 2, 1, 2, 1, 2
"""Numbers of fields in onnx.proto."""


class ExportedNetwork(NamedTuple):
    """An ONNX file's bytes, and of its metadata the height and width (px) of its images and its precision.

    `dynamic_size` tells whether it takes images of other sizes too; `teacher` is the digest of its teacher's weights
    (see `leanface.bundle.weights_digest`), None if the file records none; `flavor` is a
    `leanface.networks.interface.Flavor`, None if the file is not INT8 or of LeanFace 0.1; `task` is what the network is
    for, always the face in files of LeanFace 0.1; `outputs` tells where each kind of output begins and ends.
    """

    path: Path
    content: bytes
    image_size: int
    precision: str
    dynamic_size: bool
    teacher: str | None
    flavor: str | None
    task: str
    outputs: dict[str, tuple[int, int]]

    @property
    def output_count(self) -> int:
        """How many numbers the network answers an image with."""
        return max(stop for _, stop in self.outputs.values())


def read_onnx(path: Path) -> ExportedNetwork:
    """Read a file that stage export wrote.

    Raises:
        ArtifactError: it is missing, damaged, or was not exported by LeanFace.
    """
    try:
        content = path.read_bytes()
        model = memoryview(content)
        entries = [dict(_fields(entry)) for entry in _all(model, MODEL_METADATA)]
        metadata = {_text(entry[ENTRY_KEY]): _text(entry.get(ENTRY_VALUE, b"")) for entry in entries}
        graphs = _all(model, MODEL_GRAPH)
    except FileNotFoundError:
        raise ArtifactError(f"{path} is missing; name another file, or make it with `leanface stage export`.") from None
    except (ValueError, KeyError) as error:
        raise ArtifactError(
            f"{path} is not an ONNX file ({error}); name another, or make it with `leanface stage export`."
        ) from None
    try:
        size = int(json.loads(metadata[METADATA_PREFIX + "input"])["size"])
        (height_is_free,) = {_has_free_height(graph) for graph in graphs}
        precision, teacher = metadata[METADATA_PREFIX + "precision"], metadata.get(METADATA_PREFIX + "teacher")
        flavor = metadata.get(METADATA_PREFIX + "flavor")
        task = metadata.get(METADATA_PREFIX + "task", "face")
        layout = metadata.get(METADATA_PREFIX + "outputs") or metadata[METADATA_PREFIX + "coefficients"]
        outputs = {name: (int(start), int(stop)) for name, (start, stop) in json.loads(layout).items()}
        return ExportedNetwork(path, content, size, precision, height_is_free, teacher, flavor, task, outputs)
    except (KeyError, ValueError, TypeError, IndexError):
        raise ArtifactError(
            f"{path} does not say its image size, precision and outputs; export it with `leanface stage export`, which "
            f"writes them to its metadata ({METADATA_PREFIX}input, {METADATA_PREFIX}precision, "
            f"{METADATA_PREFIX}outputs)."
        ) from None


def overflows_here(path: Path) -> bool:
    """Tell whether a readable file is of a flavor whose sums of bytes overflow on this machine's processor."""
    if has_vnni():
        return False
    entries = [dict(_fields(entry)) for entry in _all(memoryview(path.read_bytes()), MODEL_METADATA)]
    flavors = [entry[ENTRY_VALUE] for entry in entries if _text(entry[ENTRY_KEY]) == METADATA_PREFIX + "flavor"]
    return [_text(flavor) for flavor in flavors] == ["cpu"]


def _has_free_height(graph: memoryview) -> bool:
    """Tell whether the third dimension of the first input has a name instead of a length."""
    message = _all(graph, GRAPH_INPUT)[0]
    for field in (VALUE_TYPE, TYPE_TENSOR, TENSOR_SHAPE):
        message = _all(message, field)[0]
    return bool(_all(_all(message, SHAPE_DIMENSION)[2], DIMENSION_NAME))


def _all(message: memoryview, wanted: int) -> list[memoryview]:
    """Return the contents of every field of a number, in the file's order."""
    return [content for number, content in _fields(message) if number == wanted]


def _text(content: memoryview | bytes) -> str:
    return bytes(content).decode()


def _fields(message: memoryview) -> Iterator[tuple[int, memoryview]]:
    """Yield a message's fields of bytes: strings and messages; numbers are passed over.

    Raises:
        ValueError: the message is not protobuf, or ends too soon.
    """
    at = 0
    while at < len(message):
        key, at = _varint(message, at)
        number, kind = key >> 3, key & 7
        if kind == VARINT:
            _, at = _varint(message, at)
            continue
        if kind == BYTES:
            length, at = _varint(message, at)
        elif kind in (FIXED32, FIXED64):
            length = 4 if kind == FIXED32 else 8
        else:
            raise ValueError(f"no protobuf at byte {at}")
        if number == 0 or at + length > len(message):
            raise ValueError(f"it ends too soon, after {len(message)} bytes" if number else f"no protobuf at byte {at}")
        if kind == BYTES:
            yield number, message[at : at + length]
        at += length


def _varint(message: memoryview, at: int) -> tuple[int, int]:
    """Read a number, seven bits to a byte, the lowest first; return it and where it ends."""
    value = 0
    for shift in range(0, 70, 7):
        if at == len(message):
            raise ValueError(f"it ends too soon, after {len(message)} bytes")
        byte = message[at]
        at += 1
        value |= (byte & 0x7F) << shift
        if byte < 0x80:
            return value, at
    raise ValueError(f"no protobuf at byte {at}")
