"""Read what TensorRT's `trtexec` measured of an engine's layers."""

import json
import math
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np

from leanface.errors import ArtifactError
from leanface.metrics.profile import Kernel, Profile, layer_of, total_bytes
from leanface.runtime.engine_layers import NODE, SIZES_BYTES


def is_trtexec(path: Path) -> bool:
    """Tell whether `trtexec --exportProfile` wrote a file."""
    try:
        rows: Any = json.loads(path.read_bytes())
        return "count" in rows[0]
    except (OSError, ValueError, LookupError, TypeError):
        return False


def read_trtexec(path: Path, layer_info: Path | None = None, times: Path | None = None) -> Profile:
    """Read what `trtexec --exportProfile=FILE` wrote.

    Args:
        layer_info: what --exportLayerInfo wrote, at --profilingVerbosity=detailed: types, sizes and ONNX nodes.
        times: what --exportTimes wrote: the latency without the profiler.

    Raises:
        ArtifactError: a file is missing, or not what trtexec writes.
    """
    try:
        rows = [row for row in json.loads(path.read_bytes()) if "name" in row]
        infos = (
            {} if layer_info is None else {one["Name"]: one for one in json.loads(layer_info.read_bytes())["Layers"]}
        )
        kernels = tuple(
            _kernel(row["name"], float(row.get("medianMs", row["averageMs"])), infos.get(row["name"], {}))
            for row in rows
        )
        latency = None if times is None else [float(one["computeMs"]) for one in json.loads(times.read_bytes())]
    except FileNotFoundError as error:
        raise ArtifactError(f"{error.filename} is missing.") from None
    except (ValueError, KeyError, TypeError, AttributeError) as error:
        raise ArtifactError(
            f"this is not what trtexec writes ({type(error).__name__}: {error}). Export the profile with "
            "--exportProfile, the layers with --exportLayerInfo and --profilingVerbosity=detailed, the times with "
            "--exportTimes."
        ) from None
    return Profile(
        title=path.stem, runtime="tensorrt", batch=None, image_size=None, threads=None, device="as trtexec ran",
        latency_ms=None if latency is None else float(np.median(latency)), kernels=kernels,
    )  # fmt: skip


def _kernel(name: str, time_ms: float, info: Mapping[str, Any]) -> Kernel:
    nodes = NODE.findall(info.get("Metadata", "")) or [part.strip() for part in name.split("+")]
    tensors = [*info.get("Inputs", []), *info.get("Outputs", [])]
    computed = [node for node in nodes if "_quantizer" not in node]
    kind = str(info.get("LayerType", "unknown"))
    return Kernel(
        name=name,
        layer=layer_of((computed or nodes)[0]),
        kind=kind,
        time_ms=time_ms,
        size_bytes=total_bytes([_tensor_bytes(tensor) for tensor in tensors]) if tensors else None,
        precision=str(info["Outputs"][0]["Format/Datatype"]).split()[-1] if info.get("Outputs") else "unknown",
        reformats=kind in ("Reformat", "NoOp") or name.startswith("Reformatting"),
    )


def _tensor_bytes(tensor: Mapping[str, Any]) -> int | None:
    words = str(tensor["Format/Datatype"]).replace("FP32", "Float").replace("FP16", "Half").split()
    sizes = [SIZES_BYTES[word] for word in words if word in SIZES_BYTES]
    return sizes[-1] * math.prod(int(length) for length in tensor["Dimensions"]) if sizes else None
