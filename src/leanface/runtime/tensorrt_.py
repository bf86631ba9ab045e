"""TensorRT on a CUDA GPU, from an engine: by the library that built it, or by TensorRT's lean runtime."""

from collections.abc import Callable, Sequence
from contextlib import ExitStack
from importlib.util import find_spec
from pathlib import Path
from typing import Any

from leanface.errors import ArtifactError, BackendError
from leanface.networks.interface import INPUT_NAME, OUTPUT_NAME
from leanface.runtime.base import Coefficients, Images, InputSpec, Runtime, check_names
from leanface.runtime.cuda import Cuda
from leanface.runtime.engine import BUILDERS, load_description, load_tensorrt, new_logger, runners_of
from leanface.runtime.pycuda_ import PyCuda


class TensorRtRuntime(Runtime):
    """One engine, whose weights are shared; each stream has an execution context. `threads` is not used."""

    name = "tensorrt"

    def _open(self, path: Path, threads: int, streams: int) -> InputSpec:
        description = load_description(path)
        library = str(description.get("library"))
        if description.get("options", {}).get("weights") == "stripped":
            raise BackendError(f"{path} was built without its weights; set build.weights to fixed or refittable.")
        if library not in BUILDERS:
            raise BackendError(f"{path} was built by {library!r}; expected one of {', '.join(BUILDERS)}.")
        version_compatible = bool(description.get("options", {}).get("version_compatible"))
        library, trt = load_tensorrt(runners_of(library, version_compatible=version_compatible))
        with ExitStack() as resources:
            # CUDA first: without a GPU its message says so more clearly than TensorRT's.
            devices = [new_cuda() for _ in range(streams)]
            for device in devices:
                resources.callback(device.close)
            require_target(path, description.get("targets", []), devices[0].compute_capability)
            engine = _load_engine(library, trt, path, version_compatible=version_compatible)
            spec = _input_spec(trt, engine, path)
            self.outputs = int(engine.get_tensor_shape(OUTPUT_NAME)[1])
            self._lanes = [
                _Lane(device, _new_context(library, trt, engine, path), spec, self.outputs) for device in devices
            ]
            # TensorRT-RTX captures its own graphs, and swaps kernels that it compiles meanwhile.
            self._captures = library != "tensorrt_rtx" and devices[0].captures
            self._engine = engine  # it must outlive its contexts
            self._resources = resources.pop_all()
        return spec

    def _infer(self, images: Images, stream: int) -> Coefficients:
        return self._lanes[stream].run(images, self._captures)

    def _resident(self, images: Images, stream: int) -> Callable[[], None]:
        return self._lanes[stream].resident(images, self._captures)

    def _close(self) -> None:
        del self._lanes, self._engine
        self._resources.close()


class _Lane:
    """An execution context with its own CUDA stream, and buffers for the largest shape of the engine's profile."""

    def __init__(self, cuda: Cuda | PyCuda, context: Any, spec: InputSpec, outputs: int) -> None:
        batch, side = int(spec.batch[1] or 1), int(spec.side[1] or 1)
        self._cuda, self._context, self._outputs = cuda, context, outputs
        self._images = cuda.allocate(batch * 3 * side * side)
        self._coefficients = cuda.allocate(batch * outputs)
        self._last: tuple[tuple[int, ...], bool] | None = None  # shape of the last run, and whether with copies
        if not context.set_optimization_profile_async(0, cuda.stream):
            raise BackendError("the engine has no optimization profile; rebuild it with `leanface stage build`.")
        context.set_tensor_address(INPUT_NAME, self._images.device)
        context.set_tensor_address(OUTPUT_NAME, self._coefficients.device)
        cuda.synchronize()

    def run(self, images: Images, captures: bool) -> Coefficients:
        """Copy in, compute, copy out."""
        self._images.host[: images.size] = images.ravel()
        self._replay(images.shape, lambda: self._queue(images), captures, copies=True)
        return self._coefficients.host[: len(images) * self._outputs].reshape(len(images), self._outputs).copy()

    def resident(self, images: Images, captures: bool) -> Callable[[], None]:
        """Compute again and again what `run` has copied in."""
        return lambda: self._replay(images.shape, self._execute, captures, copies=False)

    def _replay(self, shape: tuple[int, ...], queue: Callable[[], None], captures: bool, *, copies: bool) -> None:
        """Do what `queue` puts into the stream.

        What is new is run once without a graph, since a shape's first run also sets the context up; at its second run
        in a row it is captured, from then on replayed. A shape that follows another one is captured anew: what the
        context keeps of a shape on the device is overwritten by the next.
        """
        cuda = self._cuda
        if (shape, copies) == self._last and captures:
            if not cuda.has_graph:
                cuda.capture(queue)
            cuda.launch_graph()
        else:
            if (shape, copies) != self._last:
                self._prepare(shape)
                self._last = (shape, copies)
            queue()
        cuda.synchronize()

    def _prepare(self, shape: tuple[int, ...]) -> None:
        context = self._context
        self._cuda.forget_graph()
        self._last = None
        if not context.set_input_shape(INPUT_NAME, shape):
            raise BackendError(f"the engine refuses the shape {shape}; rebuild it with `leanface stage build`.")

    def _queue(self, images: Images) -> None:
        self._cuda.to_device(self._images, images.size)
        self._execute()
        self._cuda.to_host(self._coefficients, len(images) * self._outputs)

    def _execute(self) -> None:
        context = self._context
        if not context.execute_async_v3(self._cuda.stream):
            raise BackendError("the engine failed to run; see TensorRT's own messages.")


def new_cuda() -> Cuda | PyCuda:
    """Return a stream by cuda-python, or by pycuda where only that is installed.

    Raises:
        BackendError: neither is installed, or there is no GPU.
    """
    if find_spec("cuda") is None and find_spec("pycuda") is not None:
        return PyCuda()
    return Cuda()


def require_target(path: Path, targets: Sequence[str], capability: str) -> None:
    """Refuse an engine that was built for other GPUs before its library does, which does not say for which.

    Raises:
        BackendError: `capability` is none of `targets`.
    """
    if targets and "current" not in targets and capability not in targets:
        raise BackendError(
            f"{path} was built for GPUs of compute capability {', '.join(targets)}; this one is {capability}. "
            "Run `leanface stage build` on this machine, with a TensorRT that knows this GPU: "
            "`pip install leanface[tensorrt]`."
        )


def _load_engine(library: str, trt: Any, path: Path, *, version_compatible: bool) -> Any:
    logger = new_logger(trt)
    runtime = trt.Runtime(logger)
    if version_compatible:
        runtime.engine_host_code_allowed = True  # such a plan may carry the runtime that it was built with
    engine = runtime.deserialize_cuda_engine(path.read_bytes())
    if engine is None:
        raise BackendError(
            f"{library} cannot load {path} on this GPU: {'; '.join(logger.errors) or 'no reason given'}. "
            "An engine fits only the GPUs and the library version that it was built for: "
            "run `leanface stage build` on this machine."
        )
    return engine


def _new_context(library: str, trt: Any, engine: Any, path: Path) -> Any:
    if library == "tensorrt_rtx":
        settings = engine.create_runtime_config()
        settings.cuda_graph_strategy = trt.CudaGraphStrategy.WHOLE_GRAPH_CAPTURE
        context = engine.create_execution_context(settings)
    else:
        context = engine.create_execution_context()
    if context is None:
        raise BackendError(
            f"{library} has not enough GPU memory to run {path}; rebuild it for a smaller batch, or open fewer streams."
        )
    return context


def _input_spec(trt: Any, engine: Any, path: Path) -> InputSpec:
    names = [engine.get_tensor_name(index) for index in range(engine.num_io_tensors)]
    inputs = [name for name in names if engine.get_tensor_mode(name) == trt.TensorIOMode.INPUT]
    check_names(path, inputs, [name for name in names if name not in inputs])
    if any(engine.get_tensor_dtype(name) != trt.float32 for name in names):
        raise ArtifactError(f"{path} does not take and return float32; export and build it again.")
    low, _, high = (tuple(shape) for shape in engine.get_tensor_profile_shape(INPUT_NAME, 0))
    return InputSpec(batch=(low[0], high[0]), side=(low[2], high[2]))
