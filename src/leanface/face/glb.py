"""The binary form of glTF: numbers packed into one file, and the scene that refers to them.

Source: glTF 2.0 (Khronos), 3.6, 4.4 and 5.
"""

import json
import struct
from typing import Any

import numpy as np
from jaxtyping import Float32

ARRAY_BUFFER, ELEMENT_ARRAY_BUFFER = 34962, 34963
COMPONENT_TYPES = {"f": 5126, "H": 5123, "I": 5125}
REPEAT, LINEAR, LINEAR_MIPMAP_LINEAR = 10497, 9729, 9987
"""Numbers that glTF gives to kinds of buffers, NumPy's types and filters."""

KINDS = {1: "SCALAR", 2: "VEC2", 3: "VEC3", 4: "VEC4"}
ROUGHNESS = 0.8


class Glb:
    """A file in the making: arrays are added first, then a scene that names them by the numbers they got."""

    def __init__(self) -> None:
        """Begin with nothing in it."""
        self._binary: list[bytes] = []
        self._size = 0
        self._views: list[dict[str, int]] = []
        self._accessors: list[dict[str, Any]] = []

    def view(self, content: bytes, **about: int) -> int:
        """Append bytes, aligned to 4; return the number of their buffer view."""
        self._views.append({"buffer": 0, "byteOffset": self._size, "byteLength": len(content), **about})
        self._binary += [content, bytes(-len(content) % 4)]
        self._size += len(content) + len(self._binary[-1])
        return len(self._views) - 1

    def accessor(self, values: np.ndarray, target: int | None = None, *, bounds: bool = False) -> int:
        """Append an array (N,) or (N,K) and return its accessor's number.

        Args:
            target: ARRAY_BUFFER for attributes of vertices, ELEMENT_ARRAY_BUFFER for triangles, None for animations.
            bounds: state the least and the largest value, which positions and times must have.
        """
        place = self.view(values.tobytes(), **({} if target is None else {"target": target}))
        return self._access(values, bounds=bounds, bufferView=place)

    def sparse(self, values: Float32[np.ndarray, "N 3"]) -> int:
        """Append an array that is zero in most rows, and return its accessor's number."""
        rows = np.flatnonzero(values.any(1))
        if not len(rows):  # an accessor of no buffer is all zeros
            return self._access(values, bounds=True)
        indices = rows.astype(np.uint16 if rows[-1] < 2**16 else np.uint32)
        if indices.nbytes + values[rows].nbytes >= values.nbytes:
            return self.accessor(values, ARRAY_BUFFER, bounds=True)
        where = {"bufferView": self.view(indices.tobytes()), "componentType": COMPONENT_TYPES[indices.dtype.char]}
        what = {"bufferView": self.view(values[rows].tobytes())}
        return self._access(values, bounds=True, sparse={"count": len(rows), "indices": where, "values": what})

    def encode(self, scene: dict[str, Any]) -> bytes:
        """Return the file's content.

        Args:
            scene: all of glTF's JSON but the asset, accessors, buffer views and buffers.
        """
        contents = {
            "asset": {"version": "2.0", "generator": "LeanFace"},
            **scene,
            "accessors": self._accessors,
            "bufferViews": self._views,
            "buffers": [{"byteLength": self._size}],
        }
        text = json.dumps(contents, separators=(",", ":")).encode()
        text += b" " * (-len(text) % 4)
        header = struct.pack("<4sII", b"glTF", 2, 12 + 8 + len(text) + 8 + self._size)
        chunks = [struct.pack("<I4s", len(text), b"JSON"), text, struct.pack("<I4s", self._size, b"BIN\0")]
        return b"".join([header, *chunks, *self._binary])

    def material(self, name: str, texture: bytes, mime_type: str) -> dict[str, Any]:
        """Append a texture's file; return the parts of a scene that make it the scene's only material."""
        color = {"baseColorTexture": {"index": 0}, "metallicFactor": 0, "roughnessFactor": ROUGHNESS}
        return {
            "materials": [{"name": name, "pbrMetallicRoughness": color}],
            "textures": [{"source": 0, "sampler": 0}],
            "samplers": [{"magFilter": LINEAR, "minFilter": LINEAR_MIPMAP_LINEAR, "wrapS": REPEAT, "wrapT": REPEAT}],
            "images": [{"bufferView": self.view(texture), "mimeType": mime_type}],
        }

    def _access(self, values: np.ndarray, *, bounds: bool, **content: Any) -> int:
        kind = "SCALAR" if values.ndim == 1 else KINDS[values.shape[1]]
        about: dict[str, Any] = {
            "componentType": COMPONENT_TYPES[values.dtype.char],
            "count": len(values),
            "type": kind,
        }
        if bounds:
            columns = np.atleast_2d(values.T)  # one by one: a twentieth of the time of values.min(0)
            about |= {
                "min": [column.min().item() for column in columns],
                "max": [column.max().item() for column in columns],
            }
        self._accessors.append({**about, **content})
        return len(self._accessors) - 1
