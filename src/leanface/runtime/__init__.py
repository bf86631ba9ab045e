"""Everything that runs an exported network, behind one contract: opened by name, or the best that can run."""

import contextlib
import importlib
from collections.abc import Generator, Mapping
from pathlib import Path
from typing import NamedTuple

from leanface import paths
from leanface.catalog import RUNTIMES, VARIANTS, RuntimeEntry, readers_of
from leanface.device import has_nvidia_driver, has_vnni
from leanface.errors import ArtifactError, BackendError
from leanface.extras import missing_message
from leanface.runtime.base import Coefficients, Images, InputSpec, Runtime
from leanface.runtime.pool import Pool, pipelined

__all__ = [
    "Choice",
    "Coefficients",
    "Images",
    "InputSpec",
    "Pool",
    "Runtime",
    "exported_files_of",
    "files_of",
    "flavored_files",
    "open_all",
    "open_best",
    "open_runtime",
    "pipelined",
    "runtime_class",
]


class Choice(NamedTuple):
    """The runtime that `auto` chose, and why each better one was not."""

    runtime: Runtime
    skipped: dict[str, str]


def runtime_class(name: str) -> type[Runtime]:
    """Import what implements a runtime of `leanface.catalog.RUNTIMES`.

    Raises:
        BackendError: there is no such runtime, or a package that it needs is not installed.
    """
    if name not in RUNTIMES:
        raise BackendError(f"unknown runtime {name!r}; expected one of {', '.join(RUNTIMES)}")
    module, _, attribute = RUNTIMES[name].implementation.partition(":")
    try:
        return getattr(importlib.import_module(module), attribute)
    except ModuleNotFoundError as error:
        if (message := missing_message(error.name)) is None:
            raise
        raise BackendError(message) from None


def open_runtime(name: str, path: Path, threads: int = 0, streams: int = 1) -> Runtime:
    """Load what lies at `path`; use the result in a `with` statement, or `close` it.

    Args:
        threads: on the CPU, divided among the streams; 0 leaves the choice to the runtime.
        streams: how many batches can run at the same time, see `Pool` and `pipelined`.

    Raises:
        ArtifactError: the file is missing, damaged, or not what this runtime reads.
        BackendError: there is no such runtime, or it cannot run here.
    """
    return runtime_class(name)(path, threads, streams)


def open_best(files: Mapping[str, Path], threads: int = 0, streams: int = 1) -> Choice:
    """Open the best runtime (the first in the catalog) that can run one of these files here.

    Args:
        files: what each runtime would read, by its name, as `files_of` returns it.

    Raises:
        BackendError: none can; the message has the reason of each.
    """
    skipped: dict[str, str] = {}
    gpu = has_nvidia_driver()
    for name in (name for name in RUNTIMES if name in files):
        if RUNTIMES[name].on_gpu and not gpu:  # importing PyTorch to find that out takes longer than all else
            skipped[name] = "it needs an NVIDIA GPU; here is none, or no driver for it"
            continue
        try:
            return Choice(open_runtime(name, files[name], threads, streams), skipped)
        except (ArtifactError, BackendError) as error:
            skipped[name] = str(error)
    reasons = "".join(f"\n  {name}: {reason}" for name, reason in skipped.items())
    named = ", ".join(dict.fromkeys(map(str, files.values()))) or "no files"  # most runtimes read the same one
    raise BackendError(f"no runtime can run any of {named}:{reasons}")


@contextlib.contextmanager
def open_all(files: Mapping[str, Path]) -> Generator[tuple[list[Runtime], dict[str, str]]]:
    """Every runtime that can run its file here, and of each other one the reason why it cannot.

    Raises:
        ArtifactError: a file is missing, damaged, or not what its runtime reads.
    """
    opened: list[Runtime] = []
    skipped: dict[str, str] = {}
    with contextlib.ExitStack() as stack:
        for name, path in files.items():
            try:
                opened.append(stack.enter_context(open_runtime(name, path)))
            except BackendError as error:
                skipped[name] = str(error)
        yield opened, skipped


def exported_files_of(variant: str) -> dict[str, Path]:
    """What each runtime reads of a variant as it is deployed, by the runtime's name: its ONNX file, or its engine."""
    files = {"onnx": paths.onnx_path(variant), "engine": paths.engine_path(variant)}
    return {name: files[entry.reads] for name, entry in _runtimes_of(variant).items() if entry.reads in files}


def flavored_files(tensorrt: Path, cpu: Path, *, vnni: bool | None = None) -> dict[str, Path]:
    """Say which flavor of an INT8 network each runtime reads, by the runtime's name.

    Processors with VNNI get `cpu`, which is closer to the distilled network and as fast. Others would overflow in
    OpenVINO, and compute it in float32 in ONNX Runtime, at a fifth of the speed (docs/results/int8). GPUs get
    `tensorrt`.

    Args:
        tensorrt: the file of this flavor.
        cpu: the file of the other one; where it is missing, all runtimes read the first.
        vnni: whether the processor has it; None: this one.
    """
    exact = has_vnni() if vnni is None else vnni
    on_cpu = cpu if exact and cpu.is_file() else tensorrt
    return {name: tensorrt if RUNTIMES[name].on_gpu else on_cpu for name in readers_of("onnx")}


def files_of(variant: str) -> dict[str, Path]:
    """What each runtime reads of a variant (`leanface.catalog.VARIANTS`), by the runtime's name, the best first.

    Without the runtimes that would only simulate its precision.
    """
    chosen, exported = VARIANTS[variant], exported_files_of(variant)
    return {name: exported.get(name, chosen.bundle) for name in _runtimes_of(variant)}


def _runtimes_of(variant: str) -> dict[str, RuntimeEntry]:
    chosen = VARIANTS[variant]
    return {
        name: entry
        for name, entry in RUNTIMES.items()
        if chosen.precision in entry.precisions and not (chosen.flavor == "cpu" and entry.on_gpu)
    }
