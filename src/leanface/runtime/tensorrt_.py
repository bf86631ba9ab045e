"""TensorRT on a CUDA GPU, from an engine: full TensorRT or TensorRT-RTX, whichever built it."""

from contextlib import ExitStack
from pathlib import Path
from typing import Any

from leanface.errors import ArtifactError, BackendError
from leanface.face.coefficients import COUNT
from leanface.networks.interface import INPUT_NAME, OUTPUT_NAME
from leanface.runtime.base import Coefficients, Images, InputSpec, Runtime, check_names
from leanface.runtime.cuda import Cuda
from leanface.runtime.engine import LIBRARIES, load_description, load_tensorrt, new_logger


class TensorRtRuntime(Runtime):
    """Buffers are allocated once, for the largest batch of the engine's profile. `threads` is not used."""

    name = "tensorrt"

    def _open(self, path: Path, threads: int) -> InputSpec:
        library = str(load_description(path).get("library"))
        if library not in LIBRARIES:
            raise BackendError(f"{path} was built by {library!r}; expected one of {', '.join(LIBRARIES)}.")
        _, trt = load_tensorrt([library])
        with ExitStack() as resources:
            self._cuda = Cuda()
            resources.callback(self._cuda.close)
            engine = _load_engine(library, trt, path)
            spec = _input_spec(trt, engine, path)
            context = engine.create_execution_context()
            if context is None:
                raise BackendError(
                    f"{library} has not enough GPU memory to run {path}; rebuild it for a smaller batch."
                )
            batch, side = int(spec.batch[1] or 1), int(spec.side[1] or 1)
            self._images = self._cuda.allocate(batch * 3 * side * side)
            self._coefficients = self._cuda.allocate(batch * COUNT)
            context.set_tensor_address(INPUT_NAME, self._images.device)
            context.set_tensor_address(OUTPUT_NAME, self._coefficients.device)
            self._engine, self._context = engine, context  # the engine must outlive its context
            self._resources = resources.pop_all()
        return spec

    def _infer(self, images: Images) -> Coefficients:
        cuda, context = self._cuda, self._context
        count = len(images) * COUNT
        self._images.host[: images.size] = images.ravel()
        cuda.to_device(self._images, images.size)
        if not context.set_input_shape(INPUT_NAME, images.shape):
            raise BackendError(f"the engine refuses the shape {images.shape}; rebuild it with `leanface stage build`.")
        if not context.execute_async_v3(int(cuda.stream)):
            raise BackendError("the engine failed to run; see TensorRT's own messages.")
        cuda.to_host(self._coefficients, count)
        cuda.synchronize()
        return self._coefficients.host[:count].reshape(len(images), COUNT).copy()

    def _close(self) -> None:
        del self._context, self._engine
        self._resources.close()


def _load_engine(library: str, trt: Any, path: Path) -> Any:
    logger = new_logger(trt)
    runtime = trt.Runtime(logger)
    engine = runtime.deserialize_cuda_engine(path.read_bytes())
    if engine is None:
        raise BackendError(
            f"{library} cannot load {path} on this GPU: {'; '.join(logger.errors) or 'no reason given'}. "
            "An engine fits only the GPUs and the library version that it was built for: "
            "run `leanface stage build` on this machine."
        )
    return engine


def _input_spec(trt: Any, engine: Any, path: Path) -> InputSpec:
    names = [engine.get_tensor_name(index) for index in range(engine.num_io_tensors)]
    inputs = [name for name in names if engine.get_tensor_mode(name) == trt.TensorIOMode.INPUT]
    check_names(path, inputs, [name for name in names if name not in inputs])
    if any(engine.get_tensor_dtype(name) != trt.float32 for name in names):
        raise ArtifactError(f"{path} does not take and return float32; export and build it again.")
    low, _, high = (tuple(shape) for shape in engine.get_tensor_profile_shape(INPUT_NAME, 0))
    return InputSpec(batch=(low[0], high[0]), side=(low[2], high[2]))
