"""Reads what is in a GLB, by the letter of glTF 2.0."""

import json
import struct
from pathlib import Path
from typing import Any, NamedTuple, Self

import numpy as np

TYPES = {5126: "<f4", 5123: "<u2", 5125: "<u4"}
WIDTHS = {"SCALAR": 1, "VEC2": 2, "VEC3": 3, "VEC4": 4}


class Glb(NamedTuple):
    """A file's scene and its binary part."""

    scene: dict[str, Any]
    binary: bytes

    @classmethod
    def read(cls, path: Path) -> Self:
        return cls.parse(path.read_bytes())

    @classmethod
    def parse(cls, content: bytes) -> Self:
        magic, version, length, text_length, kind = struct.unpack("<4sIII4s", content[:20])
        assert (magic, version, length, kind) == (b"glTF", 2, len(content), b"JSON")
        binary_length, kind = struct.unpack("<I4s", content[20 + text_length : 28 + text_length])
        assert kind == b"BIN\0"
        binary = content[28 + text_length :]
        assert len(binary) == binary_length
        return cls(json.loads(content[20 : 20 + text_length]), binary)

    def array(self, number: int) -> np.ndarray:
        """Return an accessor's values; its bounds must be theirs."""
        accessor = self.scene["accessors"][number]
        width = WIDTHS[accessor["type"]]
        values = np.zeros((accessor["count"], width), TYPES[accessor["componentType"]])
        if "bufferView" in accessor:
            values = self._view(accessor["bufferView"], values.dtype, values.size).reshape(-1, width).copy()
        if "sparse" in accessor:
            sparse = accessor["sparse"]
            rows = self._view(
                sparse["indices"]["bufferView"], TYPES[sparse["indices"]["componentType"]], sparse["count"]
            )
            assert (np.diff(rows.astype(int)) > 0).all()
            values[rows] = self._view(sparse["values"]["bufferView"], values.dtype, width * len(rows)).reshape(
                -1, width
            )
        for bound, found in (("min", values.min(0)), ("max", values.max(0))):
            if bound in accessor:
                assert accessor[bound] == found.tolist()
        return values[:, 0] if width == 1 else values

    def animation(self) -> dict[str, np.ndarray]:
        """Return the times and, by path, the values of the only animation."""
        (animation,) = self.scene["animations"]
        samplers = animation["samplers"]
        (times,) = {sampler["input"] for sampler in samplers}
        paths = {channel["target"]["path"]: samplers[channel["sampler"]] for channel in animation["channels"]}
        return {"times": self.array(times)} | {path: self.array(each["output"]) for path, each in paths.items()}

    def _view(self, number: int, kind: Any, count: int) -> np.ndarray:
        view = self.scene["bufferViews"][number]
        kind = np.dtype(kind)
        assert view["byteOffset"] % 4 == 0
        assert count * kind.itemsize == view["byteLength"]
        return np.frombuffer(self.binary, kind, count, view["byteOffset"])
