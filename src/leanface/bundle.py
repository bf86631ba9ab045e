"""A network on disk whose architecture may have been changed: spec.json and weights.safetensors, never a pickle.

spec.json holds the network's name, the channel counts of every convolution, the pruning record (which of the
teacher's channels each convolution kept), the quantiser's state, the coefficient layout, the input contract and the
provenance. Loading builds the network from the spec and restores the weights strictly, so a file from a stranger can
hold wrong numbers but cannot run code.
"""

import hashlib
import json
import os
import shutil
import tempfile
from pathlib import Path
from typing import Annotated, Any, Literal

import safetensors.torch
from pydantic import BaseModel, ConfigDict, Field, ValidationError
from torch import nn

from leanface.errors import ArtifactError
from leanface.face.coefficients import LAYOUT
from leanface.networks.resnet import FaceReconstructionNet, build_network, widths_of

SPEC = "spec.json"
WEIGHTS = "weights.safetensors"


class InputContract(BaseModel):
    """What the network expects: RGB images in [0,1], float32, NCHW, aligned; `size` is what it was trained at."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    size: Annotated[int, Field(ge=32)]
    colour: Literal["RGB"] = "RGB"
    range: tuple[float, float] = (0.0, 1.0)
    layout: Literal["NCHW"] = "NCHW"


class Spec(BaseModel):
    """Everything that is needed to rebuild a network, except its weights."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    format_version: Literal[1] = 1
    network: Literal["resnet50"] = "resnet50"
    widths: dict[str, tuple[int, int]]
    kept: dict[str, list[int]] | None = None
    """Output channels of the teacher that each convolution kept; None for a network that was never pruned."""
    quantizer: dict[str, Any] | None = None
    """The quantiser's configuration (see leanface.quantization); None for a floating-point network."""
    coefficients: dict[str, tuple[int, int]] = {name: (part.start, part.stop) for name, part in LAYOUT.items()}
    input: InputContract
    provenance: dict[str, Any] = {}


def save_bundle(network: nn.Module, spec: Spec, folder: Path) -> None:
    """Write a bundle; the folder appears whole or not at all."""
    folder.parent.mkdir(parents=True, exist_ok=True)
    staging = Path(tempfile.mkdtemp(prefix=f".{folder.name}-", dir=folder.parent))
    try:
        tensors = {name: tensor.detach().cpu().contiguous() for name, tensor in network.state_dict().items()}
        safetensors.torch.save_file(tensors, staging / WEIGHTS)
        (staging / SPEC).write_text(spec.model_dump_json(indent=1) + "\n")
        staging.chmod(0o755)
        if folder.exists():
            shutil.rmtree(folder)
        os.replace(staging, folder)
    finally:
        shutil.rmtree(staging, ignore_errors=True)


def load_spec(folder: Path) -> Spec:
    """Read spec.json.

    Raises:
        ArtifactError: it is missing, or not a spec of this version.
    """
    path = folder / SPEC
    try:
        return Spec.model_validate_json(path.read_bytes())
    except FileNotFoundError:
        raise ArtifactError(f"{path} is missing: {folder} is not a bundle. Rebuild it with `dvc repro`.") from None
    except (ValidationError, json.JSONDecodeError) as error:
        raise ArtifactError(f"{path} is not a bundle's spec: {error}. Rebuild it with `dvc repro`.") from None


def load_bundle(folder: Path) -> tuple[nn.Module, Spec]:
    """Rebuild a network (on the CPU, in eval mode) and its spec.

    Raises:
        ArtifactError: a file is missing, truncated, or does not match the other.
    """
    spec = load_spec(folder)
    path = folder / WEIGHTS
    try:
        tensors = safetensors.torch.load_file(path)
    except FileNotFoundError:
        raise ArtifactError(f"{path} is missing. Rebuild it with `dvc repro`.") from None
    except Exception as error:  # safetensors' own error type is not a public base class
        raise ArtifactError(f"{path} is truncated or not safetensors: {error}. Rebuild it with `dvc repro`.") from None
    try:
        network: nn.Module = build_network(spec.widths)
        if spec.quantizer is not None:
            # Imported here: a floating-point network must load where ModelOpt is not installed.
            from leanface.networks.quantized import add_quantizers

            network = add_quantizers(network, spec.quantizer)
        network.load_state_dict(tensors, strict=True)
    except (ValueError, RuntimeError) as error:
        raise ArtifactError(f"{path} does not match {SPEC}: {error}. Rebuild it with `dvc repro`.") from None
    return network.eval(), spec


def load_network(folder: Path) -> tuple[FaceReconstructionNet, Spec]:
    """`load_bundle` for a floating-point network.

    Raises:
        ArtifactError: as load_bundle, or the bundle is quantised.
    """
    network, spec = load_bundle(folder)
    if not isinstance(network, FaceReconstructionNet) or spec.quantizer is not None:
        raise ArtifactError(f"{folder} holds a quantised network; a floating-point one is needed here.")
    return network, spec


def new_spec(network: nn.Module, size: int, **fields: Any) -> Spec:
    """The spec of a network as it stands now."""
    return Spec(widths=widths_of(network), input=InputContract(size=size), **fields)


def digest(folder: Path) -> str:
    """sha256 of a bundle's two files: what provenance records of a parent."""
    hasher = hashlib.sha256()
    for name in (SPEC, WEIGHTS):
        hasher.update((folder / name).read_bytes())
    return hasher.hexdigest()
