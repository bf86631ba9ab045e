"""A network on disk whose architecture may have been changed: spec.json and weights.safetensors, never a pickle.

spec.json holds the task, the channel counts of every layer, the pruning record (which of the teacher's channels each
layer kept), the quantizer's description, the layout of the outputs, the input contract, the provenance and the versions
it was made with. Loading lets the task build its network in these widths and restores the weights strictly, so a file
from a stranger can hold wrong numbers but cannot run code.
"""

import contextlib
import hashlib
import importlib.metadata
import platform
from collections.abc import Mapping
from pathlib import Path
from typing import Annotated, Any, Literal, Self, cast

import safetensors.torch
import torch
from pydantic import BaseModel, ConfigDict, Field, ValidationError, model_validator
from torch import Tensor, nn

from leanface.errors import ArtifactError, LeanFaceError
from leanface.files import staged
from leanface.networks.checkpoint import restore
from leanface.networks.widths import widths_of
from leanface.task import TaskNetwork, network_of, task_digest

SPEC = "spec.json"
WEIGHTS = "weights.safetensors"
RECORDED = ("leanface", "torch", "torch-pruning", "nvidia-modelopt")
"""Distributions whose versions shape what a bundle holds."""

REMEDY = "Rebuild it with `dvc repro`, or copy the whole folder again from where it came."

RENAMED = {"kept": "kept_channels", "coefficients": "outputs"}
RENAMED_WITHIN = {"colour": "color", "licence": "license", "kept": "excluded_layers"}
"""Keys of format 1, and what they are called since."""


class InputContract(BaseModel):
    """What the network expects: RGB images in [0,1], float32, NCHW; `size` is what it was trained at.

    Attributes:
        any_size: whether images of other sizes give the same number of outputs.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    size: Annotated[int, Field(ge=32)]
    color: Literal["RGB"] = "RGB"
    range: tuple[float, float] = (0.0, 1.0)
    layout: Literal["NCHW"] = "NCHW"
    any_size: bool = True

    @property
    def only_size(self) -> int | None:
        """The size that images must have; None: any."""
        return None if self.any_size else self.size


class Spec(BaseModel):
    """Everything that is needed to rebuild a network, except its weights."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    format_version: Literal[2] = 2
    task: str = "face"
    """What the network is for: a name in `leanface.catalog.TASKS`, or FILE.py:CLASS."""
    task_sha256: str | None = None
    """Of the task's file, if it is one."""
    widths: dict[str, tuple[int, int]]
    kept_channels: dict[str, list[int]] | None = None
    """Output channels of the teacher that each layer kept; None for a network that was never pruned."""
    quantizer: dict[str, Any] | None = None
    """The quantizer's configuration (see leanface.quantization); None for a floating-point network."""
    outputs: dict[str, tuple[int, int]]
    """Where each kind of output begins and ends."""
    input: InputContract
    provenance: dict[str, Any] = {}
    """The parents' digests, the seed, and what else the stage says about itself."""
    versions: dict[str, str] = {}
    """Of the libraries that the bundle was saved with; `save_bundle` fills it in."""

    @model_validator(mode="before")
    @classmethod
    def _upgraded(cls, fields: Any) -> Any:
        """Read a spec of format 1, LeanFace 0.1's, by the names of today."""
        if not isinstance(fields, dict) or cast(dict[str, Any], fields).get("format_version") != 1:
            return cast(Any, fields)
        spec = {RENAMED.get(name, name): value for name, value in cast(dict[str, Any], fields).items()}
        spec.pop("network", None)  # it was always the face's
        if spec.get("sparsity", "none") is None:  # 0.1 also had networks of 2:4 sparsity, which nothing reads any more
            del spec["sparsity"]
        for part in ("input", "provenance", "quantizer"):
            if isinstance(spec.get(part), dict):
                spec[part] = {RENAMED_WITHIN.get(name, name): value for name, value in spec[part].items()}
        return spec | {"format_version": 2}

    @model_validator(mode="after")
    def _one_index_per_channel(self) -> Self:
        for name, channels in (self.kept_channels or {}).items():
            outputs = self.widths.get(name, (0, 0))[1]
            if not len(channels) == len(set(channels)) == outputs or min(channels) < 0:
                raise ValueError(
                    f"kept_channels.{name} must list {outputs} different channels of the teacher, got {channels}"
                )
        return self

    @property
    def scheme(self) -> str | None:
        """Of the quantizer; None for a floating-point network."""
        return None if self.quantizer is None else str(self.quantizer.get("scheme"))

    @property
    def output_count(self) -> int:
        """How many numbers the network answers an image with."""
        return max(stop for _, stop in self.outputs.values())

    @property
    def license(self) -> str:
        """Of the weights, as far as it is known: each stage hands on its original's."""
        return str(self.provenance.get("license", "not stated by the weights' source"))

    @property
    def teacher(self) -> str | None:
        """The digest of the teacher's weights (see `weights_digest`); None for a network that has no teacher."""
        found = self.provenance.get("teacher_weights")
        return None if found is None else str(found)


def save_bundle(network: nn.Module, spec: Spec, folder: Path, half: bool = False) -> None:
    """Write a bundle in place of whatever is at `folder`; it appears whole or not at all.

    Args:
        half: write the weights of convolutions in float16, at half the size; loading makes them float32 again.

    Raises:
        ArtifactError: the folder cannot be written.
    """
    with staged(folder, owned=True) as staging:
        tensors = {name: tensor.detach().cpu().contiguous() for name, tensor in network.state_dict().items()}
        if half:
            tensors = {name: tensor.half() if tensor.ndim == 4 else tensor for name, tensor in tensors.items()}
        safetensors.torch.save_file(tensors, staging / WEIGHTS)
        spec = spec.model_copy(update={"versions": _versions()})
        (staging / SPEC).write_text(spec.model_dump_json(indent=1) + "\n")
        (staging / WEIGHTS).chmod(staging.stat().st_mode & 0o666)  # safetensors writes for the owner alone


def load_spec(folder: Path) -> Spec:
    """Read spec.json.

    Raises:
        ArtifactError: it is missing, or not a spec of this version.
    """
    path = folder / SPEC
    try:
        return Spec.model_validate_json(path.read_bytes())
    except OSError as error:
        raise ArtifactError(f"{path} is missing ({error.strerror}): {folder} is not a bundle. {REMEDY}") from None
    except ValidationError as error:
        wrong = "; ".join(".".join(map(str, e["loc"])) + f": {e['msg']}" for e in error.errors())
        raise ArtifactError(f"{path} is not a bundle's spec: {wrong}. {REMEDY}") from None


def load_bundle(folder: Path) -> tuple[nn.Module, Spec]:
    """Rebuild a network (on the CPU, in eval mode) and its spec.

    Raises:
        ArtifactError: a file is missing, truncated, or does not match the other.
    """
    spec = load_spec(folder)
    path = folder / WEIGHTS
    try:
        tensors = safetensors.torch.load_file(path)
    except OSError as error:
        raise ArtifactError(f"{path} is missing ({error.strerror or error}). {REMEDY}") from None
    except Exception as error:  # safetensors' own error type is not a public base class
        raise ArtifactError(f"{path} is truncated or not safetensors: {error}. {REMEDY}") from None
    try:
        # First, so that a spec which promises huge layers makes nothing be allocated.
        _check_widths(spec.widths, tensors)
        network = _network_of(spec).build(spec.widths)
        if spec.quantizer is not None:
            # Imported here: a floating-point network must load where ModelOpt is not installed.
            from leanface.networks.quantized import add_quantizers

            network = add_quantizers(network, spec.quantizer)
        _check_types(network, tensors)
        restore(network, tensors)
    except (ValueError, RuntimeError) as error:
        raise ArtifactError(f"{path} does not match {SPEC}: {error}. {REMEDY}") from None
    except ImportError as error:
        raise ArtifactError(
            f"{folder} is quantized, and ModelOpt is missing ({error}): `pip install leanface`."
        ) from None
    return network.eval(), spec


def _network_of(spec: Spec) -> TaskNetwork:
    """Find what builds a bundle's network.

    Raises:
        ValueError: the task is not there, has changed since, or reads the outputs otherwise.
    """
    try:
        found = network_of(spec.task, spec.task_sha256)
    except LeanFaceError as error:
        raise ValueError(str(error)) from None
    expected = dict(found.outputs)
    if spec.outputs != expected:
        raise ValueError(f"its outputs lie otherwise than task {spec.task} reads them here: {expected}")
    return found


def _check_widths(widths: Mapping[str, tuple[int, int]], tensors: Mapping[str, Tensor]) -> None:
    for name, (inputs, outputs) in widths.items():
        weight = tensors.get(f"{name}.weight")
        shape = None if weight is None else tuple(weight.shape[:2])
        # A grouped convolution's outputs read a part of its inputs each.
        if shape is None or shape[0] != outputs or inputs % max(shape[1], 1):
            raise ValueError(f"{name} has {outputs} x {inputs} channels in {SPEC}, its weight is {shape}")


def _check_types(network: nn.Module, tensors: Mapping[str, Tensor]) -> None:
    """Refuse other types, which load_state_dict would convert without a word; float16 becomes float32 exactly."""
    for name, expected in network.state_dict().items():
        types = (expected.dtype, torch.float16) if expected.ndim == 4 else (expected.dtype,)
        if name in tensors and tensors[name].dtype not in types:
            raise ValueError(f"{name} is {tensors[name].dtype}, expected {expected.dtype}")


def load_network(folder: Path) -> tuple[nn.Module, Spec]:
    """Load a bundle (see `load_bundle`) that holds a floating-point network.

    Raises:
        ArtifactError: as load_bundle, or the bundle is quantized.
    """
    network, spec = load_bundle(folder)
    if spec.quantizer is not None:
        raise ArtifactError(f"{folder} holds a quantized network; a floating-point one is needed here.")
    return network, spec


def new_spec(network: nn.Module, size: int, task: str = "face", **fields: Any) -> Spec:
    """Describe a network of a task as it stands now."""
    found = network_of(task)
    return Spec(
        task=task,
        task_sha256=task_digest(task),
        widths=widths_of(network),
        outputs=dict(found.outputs),
        input=InputContract(size=size, any_size=found.any_size),
        **fields,
    )


def digest(folder: Path) -> str:
    """Hash a bundle's two files with SHA-256: what provenance records of a parent."""
    hasher = hashlib.sha256()
    for name in (SPEC, WEIGHTS):
        hasher.update((folder / name).read_bytes())
    return hasher.hexdigest()


def weights_digest(folder: Path) -> str:
    """Return the sha256 of a bundle's weights alone: what its students record, the same on every machine.

    Raises:
        ArtifactError: they are missing.
    """
    try:
        return hashlib.sha256((folder / WEIGHTS).read_bytes()).hexdigest()
    except OSError as error:
        raise ArtifactError(f"{folder / WEIGHTS} is missing ({error.strerror}). {REMEDY}") from None


def _versions() -> dict[str, str]:
    """Return the versions of Python and of what is installed of `RECORDED`."""
    found = {"python": platform.python_version()}
    for name in RECORDED:
        with contextlib.suppress(importlib.metadata.PackageNotFoundError):
            found[name] = importlib.metadata.version(name)
    return found
