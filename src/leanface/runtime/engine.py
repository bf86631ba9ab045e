"""ONNX to an engine, by full TensorRT where it is installed, else by TensorRT-RTX, which needs no GPU.

Networks are strongly typed: precision is what the ONNX file says, and there is no switch for it here.
"""

import hashlib
import json
import logging
import time
from collections.abc import Callable, Iterable, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import onnx

from leanface.config import Build
from leanface.device import describe_device
from leanface.errors import ArtifactError, BackendError, ConfigError, ExportError
from leanface.files import atomic_write
from leanface.networks.interface import INPUT_NAME
from leanface.runtime.engine_layers import EngineLayers, Kernel, operators_of, read_kernels, sum_up
from leanface.runtime.onnx_file import ExportedNetwork, read_onnx

logger = logging.getLogger(__name__)

Shape = tuple[int, int, int, int]

TURING = "SM75"

TIMING_CACHE = ".timing.cache"
"""Beside the engines, which share it: what full TensorRT learned about its kernels' times."""

WEIGHTS_FLAGS = {"fixed": (), "refittable": ("REFIT",), "stripped": ("STRIP_PLAN", "REFIT_IDENTICAL")}
"""Names in trt.BuilderFlag."""

IN_PROFILE = {"batch_min", "batch_opt", "batch_max", "image_size_min", "image_size_max"}
"""Options that an engine's description tells in its profile."""


@dataclass(frozen=True)
class EngineDescription:
    """What lies beside an engine as .json.

    Attributes:
        status: "built"; whether it can be run depends on the machine.
        library: a name in `LIBRARIES`; it built the engine and alone can load it.
        targets: compute capabilities it was built for; "current": of the GPU in the machine that built it.
        profile: smallest, best and largest input shape.
        layers: of the engine itself; None: the library does not list them.
        kernels: each of these layers: kind, types that it reads and writes, and the ONNX nodes fused into it.
        warnings: why another precision is probably the better one.
        options: those of the configuration that the engine was built with.
        onnx_sha256: of the file it was built from.
    """

    status: str
    library: str
    version: str
    targets: list[str]
    profile: dict[str, Shape]
    layers: EngineLayers | None
    kernels: list[dict[str, Any]]
    warnings: list[str]
    options: dict[str, Any]
    size_bytes: int
    build_seconds: float
    onnx_sha256: str


def _full() -> Any:
    import tensorrt  # pyright: ignore[reportMissingImports]

    return tensorrt  # pyright: ignore[reportUnknownVariableType]


def _rtx() -> Any:
    import tensorrt_rtx_bindings

    return tensorrt_rtx_bindings


def _lean() -> Any:
    import tensorrt_lean_bindings  # pyright: ignore[reportMissingImports]

    return tensorrt_lean_bindings  # pyright: ignore[reportUnknownVariableType]


LIBRARIES: dict[str, Callable[[], Any]] = {"tensorrt": _full, "tensorrt_rtx": _rtx, "tensorrt_lean": _lean}
"""Libraries with (nearly) the same API. The lean one only runs engines."""

BUILDERS = ("tensorrt", "tensorrt_rtx")
"""Those that build engines, best first."""


def runners_of(library: str, *, version_compatible: bool) -> tuple[str, ...]:
    """Return the libraries that run what `library` built, best first."""
    return (library, "tensorrt_lean") if library == "tensorrt" and version_compatible else (library,)


def load_tensorrt(names: Iterable[str] = BUILDERS) -> tuple[str, Any]:
    """Name and module of the first of these `LIBRARIES` that is installed.

    Raises:
        BackendError: none is.
    """
    reasons: list[str] = []
    for name in names:
        try:
            return name, LIBRARIES[name]()
        except (ImportError, OSError) as error:  # OSError: a shared library of it is missing
            reasons.append(f"{name}: {error}")
    raise BackendError(
        f"no TensorRT library can be imported ({'; '.join(reasons)}); "
        "install one with `pip install -c constraints.txt leanface[engines]`."
    )


def new_logger(trt: Any) -> Any:
    """A TensorRT logger that prints nothing: it keeps `errors`, and `layers`, the list of an engine's layers."""

    class Logger(trt.ILogger):
        def __init__(self) -> None:
            trt.ILogger.__init__(self)
            self.errors: list[str] = []
            self.layers: list[str] = []

        def log(self, severity: Any, message: str) -> None:
            if severity in (trt.ILogger.ERROR, trt.ILogger.INTERNAL_ERROR):
                self.errors.append(message)
            elif "LayerType: " in message:
                self.layers.append(message)

    return Logger()


def build_engine(onnx_path: Path, plan_path: Path, build: Build) -> EngineDescription:
    """Build and write an engine and, beside it, its description as .json.

    The batch size is dynamic within `build`, and so are height and width where it has a range of sizes; otherwise they
    are those in the ONNX file's metadata.

    Raises:
        ArtifactError: the ONNX file is missing, damaged, or was not exported by LeanFace.
        ConfigError: the range of sizes leaves out the network's own, the file takes that size alone, or the library
            knows no such target.
        ExportError: TensorRT does not accept the graph; the message is the parser's own.
        BackendError: the file's flavor is not for TensorRT, no TensorRT library is installed, or it cannot build here.
    """
    exported = read_onnx(onnx_path)
    if exported.flavor == "cpu":
        raise BackendError(
            f"{onnx_path} is of flavor cpu, whose unsigned bytes TensorRT would read as signed ones; build the file of "
            "flavor tensorrt (variant quantized_int8)."
        )
    library, trt = load_tensorrt()
    profile = make_profile(exported, build)
    start = time.perf_counter()
    plan, targets, kernels = _build(library, trt, exported, profile, build, plan_path.with_name(TIMING_CACHE))
    layers = sum_up(kernels, operators_of(onnx.load_model_from_string(exported.content))) if kernels else None
    warnings = _warnings(library, exported, layers)
    for warning in warnings:
        logger.warning("%s", warning)
    description = EngineDescription(
        status="built",
        library=library,
        version=str(trt.__version__),
        targets=targets,
        profile=profile,
        layers=layers,
        kernels=[_as_json(kernel) for kernel in kernels],
        warnings=warnings,
        options=build.model_dump(exclude=IN_PROFILE),
        size_bytes=len(plan),
        build_seconds=round(time.perf_counter() - start, 3),
        onnx_sha256=hashlib.sha256(exported.content).hexdigest(),
    )
    text = json.dumps(asdict(description), indent=1) + "\n"
    atomic_write(plan_path, plan)
    atomic_write(plan_path.with_suffix(".json"), text)
    return description


def _warnings(library: str, exported: ExportedNetwork, layers: EngineLayers | None) -> list[str]:
    if layers is None or exported.precision != "int8" or not layers.unfused:
        return []
    moved = "" if layers.bytes_per_image is None else f", and {layers.bytes_per_image / 1e6:.0f} MB move per image"
    return [
        f"{library} does not fuse {exported.precision.upper()}: of the {layers.convolutions} convolutions of "
        f"{exported.path} {layers.unfused} are followed by kernels of their own that add and requantize{moved}. The "
        "FP16 engine is probably faster on these GPUs; runtime triton_int8 computes the INT8 file fused."
    ]


def _as_json(kernel: Kernel) -> dict[str, Any]:
    return {
        "name": kernel.name,
        "kind": kernel.kind,
        "reads": [tensor.dtype for tensor in kernel.reads],
        "writes": [tensor.dtype for tensor in kernel.writes],
        "nodes": list(kernel.nodes),
    }


def make_profile(exported: ExportedNetwork, build: Build) -> dict[str, Shape]:
    """Smallest ("min"), best ("opt") and largest ("max") input shape of an engine.

    Raises:
        ConfigError: the range of sizes leaves out the network's own, or the file takes that size alone.
    """
    size = exported.image_size
    smallest, largest = build.image_size_min or size, build.image_size_max or size
    if not smallest <= size <= largest:
        raise ConfigError(
            f"build.image_size_min {smallest} to build.image_size_max {largest} px leave out {size} px, which "
            f"{exported.path} was made for; widen them, or set them to null."
        )
    if smallest < largest and not exported.dynamic_size:
        raise ConfigError(f"{exported.path} takes {size} px alone; export it with export.dynamic_size: true.")
    return {
        "min": (build.batch_min, 3, smallest, smallest),
        "opt": (build.batch_opt, 3, size, size),
        "max": (build.batch_max, 3, largest, largest),
    }


def load_description(plan_path: Path) -> dict[str, Any]:
    """Read what `build_engine` wrote beside an engine.

    Raises:
        ArtifactError: it is missing or not JSON.
    """
    path = plan_path.with_suffix(".json")
    try:
        return json.loads(path.read_text())
    except (FileNotFoundError, json.JSONDecodeError) as error:
        raise ArtifactError(f"{path} does not describe an engine ({error}); run `leanface stage build`.") from None


def _build(
    library: str,
    trt: Any,
    exported: ExportedNetwork,
    shapes: dict[str, Shape],
    build: Build,
    timing_cache: Path,
) -> tuple[bytes, list[str], list[Kernel]]:
    """The plan, the compute capabilities that it was built for, and its kernels, if the library lists them."""
    logger = new_logger(trt)
    try:
        builder = trt.Builder(logger)
    except (TypeError, RuntimeError) as error:
        raise BackendError(f"{library} cannot build engines here: {'; '.join(logger.errors) or error}") from error
    network = builder.create_network(1 << int(trt.NetworkDefinitionCreationFlag.STRONGLY_TYPED))
    _parse(library, trt.OnnxParser(network, logger), exported)
    config = builder.create_builder_config()
    config.set_memory_pool_limit(trt.MemoryPoolType.WORKSPACE, build.workspace_mib << 20)
    config.builder_optimization_level = build.builder_level
    config.profiling_verbosity = trt.ProfilingVerbosity.DETAILED  # lists the engine's layers
    config.hardware_compatibility_level = getattr(trt.HardwareCompatibilityLevel, build.hardware_compatible.upper())
    config.clear_flag(trt.BuilderFlag.TF32)  # float32 in the file means float32
    config.set_flag(trt.BuilderFlag.SPARSE_WEIGHTS)  # sparse tensor cores, where weights have the 2:4 pattern
    for flag in WEIGHTS_FLAGS[build.weights]:
        config.set_flag(getattr(trt.BuilderFlag, flag))
    if build.version_compatible:
        config.set_flag(trt.BuilderFlag.VERSION_COMPATIBLE)
    profile = builder.create_optimization_profile()
    profile.set_shape(INPUT_NAME, shapes["min"], shapes["opt"], shapes["max"])
    config.add_optimization_profile(profile)
    targets = _set_targets(library, trt, config, build.targets)
    times_kernels = library == "tensorrt" and build.timing_cache
    if times_kernels:
        known = timing_cache.read_bytes() if timing_cache.exists() else b""
        if not config.set_timing_cache(config.create_timing_cache(known), False):  # of another GPU or version
            config.set_timing_cache(config.create_timing_cache(b""), False)
    plan = builder.build_serialized_network(network, config)
    if plan is None and TURING in targets and build.targets in ("auto", "portable") and len(targets) > 1:
        # TensorRT-RTX has no FP32 matrix product for it, which a linear layer needs; the record says what is left.
        targets = _set_targets(library, trt, config, [name for name in targets if name != TURING])
        plan = builder.build_serialized_network(network, config)
    if plan is None:
        raise BackendError(f"{library} could not build an engine from {exported.path}: {'; '.join(logger.errors)}")
    if times_kernels:
        atomic_write(timing_cache, bytes(config.get_timing_cache().serialize()))
    return bytes(plan), targets, read_kernels(logger.layers)


def _parse(library: str, parser: Any, exported: ExportedNetwork) -> None:
    """Fill the parser's network.

    Raises:
        ExportError: with what the parser itself says of each node that it does not accept.
    """
    if parser.parse(exported.content):
        return
    errors = [parser.get_error(index) for index in range(parser.num_errors)]
    lines = [f"  node {error.node_name() or '?'} ({error.node_operator() or '?'}): {error.desc()}" for error in errors]
    raise ExportError(f"{library} cannot parse {exported.path}:\n" + "\n".join(lines))


def _set_targets(library: str, trt: Any, config: Any, wanted: str | Sequence[str]) -> list[str]:
    """Choose the GPUs of an engine; full TensorRT builds for the one in this machine alone.

    Raises:
        ConfigError: TensorRT-RTX does not know one of them.
    """
    if library != "tensorrt_rtx":
        return ["current"]
    members = trt.ComputeCapability.__members__
    known = [name for name in members if name.startswith("SM")]
    targets = _chosen_targets(wanted, known)
    config.num_compute_capabilities = len(targets)
    for index, name in enumerate(targets):
        config.set_compute_capability(members[name], index)
    return targets


def _chosen_targets(wanted: str | Sequence[str], known: Sequence[str]) -> list[str]:
    if wanted == "portable":
        return list(known)
    if wanted == "auto":
        here = [f"SM{gpu['compute'].replace('.', '')}" for gpu in describe_device()["gpus"][:1]]
        return here if here and here[0] in known else list(known)
    unknown = [name for name in wanted if name not in known]
    if unknown or not wanted:
        raise ConfigError(
            f"build.targets names {', '.join(unknown) or 'nothing'}; expected auto, portable, or some of "
            f"{', '.join(known)}, for which TensorRT-RTX can build this network."
        )
    return list(wanted)
