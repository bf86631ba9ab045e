"""Opens any form of the network that LeanFace makes, and knows which images it reads."""

import json
from pathlib import Path
from typing import NamedTuple

from leanface import catalog, paths
from leanface.catalog import RUNTIMES, readers_of
from leanface.errors import ArtifactError, BackendError
from leanface.runtime import Runtime, flavored_files, open_best, open_runtime
from leanface.runtime.onnx_file import read_onnx


class Network(NamedTuple):
    """An open network, the side (px) of its images, and its precision."""

    path: Path
    runtime: Runtime
    image_size: int
    precision: str


class _Contract(NamedTuple):
    """What a file says of itself, which runtimes read it, and which do so on request alone: they round it to FP16."""

    image_size: int
    precision: str
    readers: tuple[str, ...]
    on_request: tuple[str, ...] = ()


def default_flavors() -> tuple[Path, Path]:
    """Find the network that LeanFace ships, or else the pipeline's own: its flavors tensorrt and cpu.

    Raises:
        ArtifactError: there is neither.
    """
    shipped = paths.PACKAGED_MODEL, paths.PACKAGED_CPU_MODEL
    own = paths.onnx_path(catalog.DEPLOYED), paths.onnx_path(catalog.DEPLOYED_ON_CPU)
    for tensorrt, cpu in (shipped, own):
        if tensorrt.is_file():
            return tensorrt, cpu
    raise ArtifactError(
        f"no network: neither {paths.PACKAGED_MODEL} nor {paths.onnx_path(catalog.DEPLOYED).absolute()} is there. "
        "Reinstall LeanFace, run `dvc repro` in its project, or name an exported network (--model)."
    )


def default_model() -> Path:
    """Find the default network in the flavor that is right everywhere; errors as for `default_flavors`."""
    return default_flavors()[0]


def default_files() -> dict[str, Path]:
    """Find what each runtime reads of the default network, by its name; errors as for `default_flavors`."""
    return flavored_files(*default_flavors())


def open_network(path: Path | None, runtime: str, threads: int, cpu: Path | None = None) -> Network:
    """Check what the file says of itself, and open it.

    Args:
        path: an .onnx file, a bundle's folder, or an engine (.plan); None: the default network, in the flavor that the
            runtime reads.
        runtime: a name in `leanface.catalog.RUNTIMES`, or "auto", or "cpu" or "gpu": the best one there.
        cpu: the INT8 network at `path` in flavor cpu, see `flavored_files`.

    Raises:
        ArtifactError: the file is missing, damaged, not LeanFace's, or of another task than the face.
        BackendError: the runtime is unknown, does not read such files, or cannot run here.
    """
    contract = _contract(default_model() if path is None else path)
    readers = contract.readers + contract.on_request
    if path is None:
        files = default_files()
    else:
        files = dict.fromkeys(readers, path) if cpu is None else flavored_files(path, cpu)
    if runtime in ("auto", "cpu", "gpu"):
        allowed = [
            name for name in contract.readers if runtime == "auto" or RUNTIMES[name].on_gpu == (runtime == "gpu")
        ]
        opened = open_best({name: files[name] for name in allowed}, threads).runtime
    elif runtime in RUNTIMES and runtime not in readers:
        raise BackendError(f"{runtime} does not read {path or default_model()}; expected one of {', '.join(readers)}.")
    else:
        opened = open_runtime(runtime, files.get(runtime, Path()), threads)  # which refuses an unknown name
    return Network(files[opened.name], opened, contract.image_size, contract.precision)


def _contract(path: Path) -> _Contract:
    if path.is_dir():
        from leanface.bundle import SPEC, load_spec  # which imports PyTorch

        if not (path / SPEC).is_file():
            raise ArtifactError(f"{path} is not a bundle: it has no {SPEC}. Name an .onnx file, a bundle or a .plan.")
        spec = load_spec(path)
        require_face(path, spec.task)
        precision, readers = spec.scheme or "fp32", readers_of("bundle")
        # Those that compute in FP32 also simulate 8 bits; the others round to what they compute in.
        exact = tuple(name for name in readers if {precision, "fp32"} & set(RUNTIMES[name].precisions))
        return _Contract(spec.input.size, precision, exact, tuple(name for name in readers if name not in exact))
    if path.suffix == ".plan":
        return _engine_contract(path)
    exported = read_onnx(path)
    require_face(path, exported.task)
    return _Contract(exported.image_size, exported.precision, readers_of("onnx"))


def require_face(path: Path, task: str) -> None:
    """Refuse a network that does not read faces.

    Raises:
        ArtifactError: it is another task's.
    """
    if task != "face":
        raise ArtifactError(
            f"{path} holds a network of task {task}; this is for networks that read faces. `leanface bench` runs any."
        )


def _engine_contract(path: Path) -> _Contract:
    """Read the description that stage build writes beside an engine."""
    description = path.with_suffix(".json")
    try:
        size = int(json.loads(description.read_text())["profile"]["opt"][2])
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise ArtifactError(
            f"{description} does not describe an engine ({error}); keep it beside {path}, or build it again."
        ) from None
    return _Contract(size, path.stem.rpartition("_")[2], readers_of("engine"))
