"""How long each layer of a network takes, typed from the moment it is measured until it is drawn."""

import re
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Annotated, NamedTuple

from pydantic import BaseModel, ConfigDict, Field, TypeAdapter, ValidationError

from leanface.errors import ArtifactError
from leanface.files import atomic_write

COVERED = 0.1
"""By how much the layers' sum may differ from the latency, as a share of it."""


class Kernel(BaseModel):
    """One thing that a runtime executes for a network.

    Attributes:
        name: the runtime's own.
        layer: the network's layer that it belongs to, as `layer_of` returns it.
        kind: the runtime's word for what it does.
        time_ms: mean over the faster half of the profiled runs (OpenVINO: over all), or what an imported profile has.
        size_bytes: read and written per run: feature maps and weights; None if it is not known.
        precision: in which it computed, in the runtime's words.
        reformats: it changes only type or layout.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    name: str
    layer: str
    kind: str
    time_ms: float
    size_bytes: int | None
    precision: str
    reformats: bool


class Profile(BaseModel):
    """A network in a runtime, kernel by kernel.

    Attributes:
        latency_ms: mean over the faster half of the runs without the profiler, in turns with the others; None: unknown.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    title: str
    runtime: str
    batch: int | None
    image_size: int | None
    threads: int | None
    device: str
    latency_ms: float | None
    kernels: tuple[Kernel, ...]

    @property
    def sum_ms(self) -> float:
        """All kernels together."""
        return sum(kernel.time_ms for kernel in self.kernels)

    @property
    def difference(self) -> float | None:
        """By how much the sum exceeds the latency, as a share of it."""
        return None if self.latency_ms is None else self.sum_ms / self.latency_ms - 1

    @property
    def covers(self) -> bool:
        """Whether the kernels explain the latency."""
        return self.difference is not None and abs(self.difference) <= COVERED


class LayerTime(NamedTuple):
    """All kernels of a layer; `reformat_ms` is the part that only changes type or layout."""

    time_ms: float
    reformat_ms: float
    size_bytes: int | None
    precision: str
    kinds: str


def layers(profile: Profile) -> dict[str, LayerTime]:
    """Sum up the kernels of each layer, in the order of execution."""
    grouped: dict[str, list[Kernel]] = {}
    for kernel in profile.kernels:
        grouped.setdefault(kernel.layer, []).append(kernel)
    return {layer: _layer(kernels) for layer, kernels in grouped.items()}


def _layer(kernels: Sequence[Kernel]) -> LayerTime:
    computing = [kernel for kernel in kernels if not kernel.reformats] or kernels
    return LayerTime(
        sum(kernel.time_ms for kernel in kernels),
        sum(kernel.time_ms for kernel in kernels if kernel.reformats),
        total_bytes([kernel.size_bytes for kernel in kernels]),
        ", ".join(dict.fromkeys(kernel.precision for kernel in computing)),
        ", ".join(dict.fromkeys(kernel.kind for kernel in kernels)),
    )


def total_bytes(sizes: Sequence[int | None]) -> int | None:
    """Add sizes up; None if one is not known."""
    known = [size for size in sizes if size is not None]
    return sum(known) if len(known) == len(sizes) else None


def layer_of(node: str) -> str:
    """Return the layer of an ONNX node: /backbone/layer1/layer1.0/conv1/Conv is of backbone.layer1.0.conv1.

    What quantizes a layer's input or weights belongs to the layer, and a ReLU or an addition to what computed it last.
    """
    parts = [part for part in node.split("/") if part]
    if len(parts) < 2:
        return node
    scopes = [part for part in parts[:-1] if not re.fullmatch(r"\w+_quantizer|WithoutBiases", part)]
    if parts[-1] == "WithoutBiases":
        scopes = scopes[:-1]
    named = [
        one for one, following in zip(scopes, [*scopes[1:], ""], strict=True) if not following.startswith(one + ".")
    ]
    return ".".join(named) or node


def save_profiles(profiles: Sequence[Profile], path: Path) -> None:
    """Write them whole or not at all."""
    atomic_write(path, _LIST.dump_json(tuple(profiles), indent=1))


def read_profiles(path: Path) -> tuple[Profile, ...]:
    """Read what `save_profiles` wrote.

    Raises:
        ArtifactError: it is missing, damaged, or something else.
    """
    try:
        return _LIST.validate_json(path.read_bytes())
    except FileNotFoundError:
        raise ArtifactError(f"{path} is missing.") from None
    except ValidationError as error:
        first = error.errors()[0]
        where = ".".join(map(str, first["loc"])) or "contents"
        raise ArtifactError(
            f"{path} is no profile ({where}: {first['msg']}); expected the profile.json of `leanface profile`, or what "
            "`trtexec --exportProfile` wrote."
        ) from None


_LIST: TypeAdapter[tuple[Profile, ...]] = TypeAdapter(Annotated[tuple[Profile, ...], Field(min_length=1)])


def layer_order(profiles: Iterable[Profile]) -> list[str]:
    """List the layers of all profiles, each once, in the order of execution."""
    return list(dict.fromkeys(kernel.layer for profile in profiles for kernel in profile.kernels))
