"""Reads a network's weights from PyTorch and safetensors files as people have them, without running their code."""

import argparse
import pathlib
import re
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any, cast

import numpy as np
import safetensors.torch
import torch
from torch import Tensor, nn

from leanface.errors import ArtifactError

_SCALAR: Any = np.float64(0).__reduce__()[0]
"""The function that NumPy's numbers are pickled by; its module has changed its name."""

PLAIN: list[Any] = [
    argparse.Namespace,
    pathlib.PosixPath,
    np.dtype,
    *(type(np.dtype(name)) for name in ("bool", "int32", "int64", "float32", "float64")),
    *((_SCALAR, f"numpy.{core}.multiarray.scalar") for core in ("core", "_core")),
]
"""What lies beside the weights in many a checkpoint, and runs nothing when it is unpickled: options, paths, numbers."""

PREFERRED = ("net_recon", "state_dict", "model", "net", "network")
"""Entries that are looked into first; others, such as an `ema`, may hold a network of the same layout."""

DEPTH = 3
"""How deep a network's weights may be nested."""

COUNTER = ".num_batches_tracked"
"""Ends the name of a batch norm's counter, which old files lack, and which inference does not read."""

ADVICE = "Save the weights alone, torch.save(network.state_dict(), FILE), where the network's code is installed."


def load_weights(path: Path, network: nn.Module) -> None:
    """Load a network's weights, wherever they are nested in the file and with whatever prefix.

    Args:
        path: a file of PyTorch's or safetensors.
        network: gets the weights.

    Raises:
        ArtifactError: the file does not hold them; one line that says what it is and what to do.
    """
    state = _find(path, network)
    counters = {name: value for name, value in network.state_dict().items() if name.endswith(COUNTER)}
    try:
        restore(network, counters | state)
    except ValueError as error:
        raise ArtifactError(f"{path} does not hold the face reconstruction network: {error}.") from None


def _find(path: Path, network: nn.Module) -> dict[str, Tensor]:
    """Return tensors by the names that the network has for them, possibly some too few or too many."""
    tree = _read(path)
    if isinstance(tree, dict) and {"average", "pytorch-lightning_version"} <= cast(set[str], tree.keys()):
        raise ArtifactError(f"{path} is the state of an unfinished training; run its stage again to finish it.")
    names = set(network.state_dict())
    found = [_without_prefix(state, names) for state in _states(tree, DEPTH)]
    best = max(found, key=lambda state: len(names & state.keys()), default=cast(dict[str, Tensor], {}))
    if not names & best.keys():
        held = (
            f"entries {', '.join(map(str, list(cast(dict[Any, Any], tree))[:5]))}" if isinstance(tree, dict) else "none"
        )
        raise ArtifactError(
            f"{path} does not hold the face reconstruction network: no tensor has a name like {next(iter(names))} "
            f"(it has {held})."
        )
    return best


def restore(network: nn.Module, state: Mapping[str, Tensor]) -> None:
    """Load weights strictly.

    Raises:
        ValueError: tensors are missing, unknown, or of another shape or type; a line with how many, and an example.
    """
    own = cast(dict[str, Tensor], network.state_dict())
    problems: list[str] = []
    if missing := [name for name in own if name not in state]:
        problems.append(f"{len(missing)} of its {len(own)} tensors are missing (such as {missing[0]})")
    if other := [name for name in own if name in state and _kind(state[name]) != _kind(own[name])]:
        found, expected = _kind(state[other[0]]), _kind(own[other[0]])
        problems.append(f"{len(other)} tensors differ in kind (such as {other[0]}: {found}, expected {expected})")
    if unknown := [name for name in state if name not in own]:
        problems.append(f"{len(unknown)} tensors are not the network's (such as {unknown[0]})")
    if problems:
        raise ValueError("; ".join(problems))
    network.load_state_dict(dict(state), strict=True)


def _kind(tensor: Tensor) -> str:
    """Describe a tensor's shape and whether its numbers are whole; a network converts the precision itself."""
    return f"{'floats' if tensor.is_floating_point() else 'whole numbers'} {list(tensor.shape)}"


def _read(path: Path) -> Any:
    try:
        with path.open("rb") as file:
            head = file.read(512)
    except FileNotFoundError:
        raise ArtifactError(f"{path} is missing; point teacher.path at a checkpoint.") from None
    except OSError as error:
        raise ArtifactError(f"{path} cannot be read ({error.strerror}); point teacher.path at a checkpoint.") from None
    if not head.strip(b"\0 \r\n\t"):
        raise ArtifactError(f"{path} is empty; copy or download it again.")
    if head.lstrip().startswith(b"<"):
        raise ArtifactError(f"{path} is a web page, not a checkpoint; download the file itself, by its direct link.")
    if head.startswith(b"version https://git-lfs"):
        raise ArtifactError(f"{path} is a pointer of Git LFS, not the file; run `git lfs pull` where it came from.")
    try:
        if head[8:9] == b"{":  # after the header's length
            return safetensors.torch.load_file(path)
        with torch.serialization.safe_globals(PLAIN):
            return torch.load(path, map_location="cpu", weights_only=True)
    except Exception as error:  # pickle, zip, EOF, runtime and safetensors' own errors
        raise ArtifactError(f"{path} {_explain(str(error))}") from None


def _explain(error: str) -> str:
    """Say in a line why a file could not be read; PyTorch's own advice is to run the code in it."""
    if "TorchScript" in error:
        return f"is a TorchScript program, not a checkpoint. {ADVICE}"
    if found := re.search(r"GLOBAL (\S+)|class (\S+)|type (\S+) (?:was not|is not)", error):
        name = next(filter(None, found.groups())).strip("'`")
        return f"holds Python objects ({name}), whose code LeanFace does not run. {ADVICE}"
    return "is damaged, or not a checkpoint of PyTorch or safetensors; copy or download it again."


def _states(tree: Any, depth: int) -> Iterator[dict[str, Tensor]]:
    """Yield every mapping that holds tensors, those in preferred entries first."""
    if not isinstance(tree, dict):
        return
    entries = cast(dict[Any, Any], tree)
    tensors = {str(name): value for name, value in entries.items() if isinstance(value, Tensor)}
    if depth:
        for name in sorted(entries, key=lambda name: PREFERRED.index(name) if name in PREFERRED else len(PREFERRED)):
            yield from _states(entries[name], depth - 1)
    if tensors:
        yield tensors


def _without_prefix(state: dict[str, Tensor], names: set[str]) -> dict[str, Tensor]:
    """Remove what wrappers put before names (`module.`, `_orig_mod.`), and what lies beside the network in a wrapper.

    The first name that ends like a known one tells what the prefix is.
    """
    for name in state:
        parts = name.split(".")
        for start in range(len(parts)):
            if ".".join(parts[start:]) in names:
                prefix = "".join(f"{part}." for part in parts[:start])
                return {name.removeprefix(prefix): value for name, value in state.items() if name.startswith(prefix)}
    return state
