"""ONNX Runtime from an ONNX file: on the CPU, and on a CUDA GPU with the package `onnxruntime-gpu`."""

import threading
from collections.abc import Callable, Generator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
import onnxruntime

from leanface.errors import ArtifactError, BackendError
from leanface.networks.interface import INPUT_NAME, OUTPUT_NAME
from leanface.runtime.base import Coefficients, Images, InputSpec, Runtime, check_names, threads_per_stream
from leanface.runtime.onnx_file import overflows_here, read_onnx

ORT: Any = onnxruntime
"""Its functions and classes have no types."""

CUDA_PROVIDER = "CUDAExecutionProvider"

CUDA_OPTIONS = {
    "device_id": "0",
    "use_tf32": "0",  # float32 in the file means float32
    "prefer_nhwc": "1",  # convolutions in the layout that tensor cores read
    "enable_cuda_graph": "1",
    "cudnn_conv_algo_search": "EXHAUSTIVE",
    "arena_extend_strategy": "kSameAsRequested",  # the default doubles, and keeps what it has taken
}


class OnnxRuntime(Runtime):
    """On the CPU. Each stream has a session: threads belong to a session, and are divided in no other way."""

    name = "onnxruntime"

    def _open(self, path: Path, threads: int, streams: int) -> InputSpec:
        share = threads_per_stream(threads, streams)
        self._sessions = [open_session(path, share, ["CPUExecutionProvider"]) for _ in range(streams)]
        self.outputs = _outputs(self._sessions[0])
        return _input_spec(self._sessions[0])

    def _infer(self, images: Images, stream: int) -> Coefficients:
        return self._sessions[stream].run([OUTPUT_NAME], {INPUT_NAME: images})[0]

    def _close(self) -> None:
        del self._sessions


class OnnxRuntimeCuda(Runtime):
    """On the first GPU, as one CUDA graph per input shape, on buffers that are allocated once per shape.

    Each stream has a session, because a graph's buffers can serve one run at a time. `threads` is not used. A graph
    belongs to the thread that captured it: each thread captures at its first run of a shape.
    """

    name = "onnxruntime_cuda"

    def _open(self, path: Path, threads: int, streams: int) -> InputSpec:
        providers = ORT.get_available_providers()
        if CUDA_PROVIDER not in providers:
            raise BackendError(
                f"onnxruntime has no {CUDA_PROVIDER} here (it has {', '.join(providers)}); on a machine with an NVIDIA "
                "GPU replace it: `pip uninstall onnxruntime && pip install onnxruntime-gpu`."
            )
        if read_onnx(path).precision == "int8":
            raise BackendError(
                f"onnxruntime's {CUDA_PROVIDER} has no INT8 convolutions, and in the layout that tensor "
                f"cores read it ends the process at {path}: take the FP16 file of the same network, or TensorRT."
            )
        ORT.preload_dlls()  # CUDA and cuDNN from NVIDIA's Python packages, where they are installed
        try:
            sessions = [open_session(path, 0, [(CUDA_PROVIDER, CUDA_OPTIONS)]) for _ in range(streams)]
        except ArtifactError as error:
            if "graph capture" not in str(error):
                raise
            raise BackendError(f"onnxruntime cannot run {path} as a CUDA graph: {error.__cause__}") from error
        if CUDA_PROVIDER not in sessions[0].get_providers():  # it falls back to the CPU without an error
            raise BackendError(f"onnxruntime could not start its {CUDA_PROVIDER}: there is no GPU, or no CUDA 13.")
        self._sessions = [BoundSession(session, "cuda") for session in sessions]
        self.outputs = _outputs(sessions[0])
        return _input_spec(sessions[0])

    def _infer(self, images: Images, stream: int) -> Coefficients:
        return self._sessions[stream].run(images)

    def _resident(self, images: Images, stream: int) -> Callable[[], None]:
        return self._sessions[stream].resident(images)

    def _close(self) -> None:
        del self._sessions


class Turns:
    """Many runs at a time, or one capture: while onnxruntime captures, CUDA refuses what other threads ask of it."""

    def __init__(self) -> None:
        self._changed = threading.Condition()
        self._running = self._capturing = 0

    @contextmanager
    def run(self) -> Generator[None]:
        """A run; captures that wait go first."""
        with self._changed:
            self._changed.wait_for(lambda: not self._capturing)
            self._running += 1
        try:
            yield
        finally:
            with self._changed:
                self._running -= 1
                self._changed.notify_all()

    @contextmanager
    def capture(self) -> Generator[None]:
        """A capture, while nothing else runs."""
        with self._changed:
            self._capturing += 1
            try:
                self._changed.wait_for(lambda: not self._running)
                yield
            finally:
                self._capturing -= 1
                self._changed.notify_all()


TURNS = Turns()
"""Of all sessions in this process: they share the device."""


class _Captured(threading.local):
    """The shapes that this thread has captured."""

    def __init__(self) -> None:
        self.shapes: set[tuple[int, ...]] = set()


class BoundSession:
    """A session and its buffers on the device, one pair per input shape, which a CUDA graph needs to stay in place."""

    def __init__(self, session: Any, device: str) -> None:
        self._session, self._device = session, device
        self._shapes: dict[tuple[int, ...], tuple[Any, Any, Any, Any]] = {}
        self._captured = _Captured()

    def run(self, images: Images) -> Coefficients:
        with TURNS.run() if images.shape in self._captured.shapes else TURNS.capture():
            if images.shape not in self._shapes:
                self._shapes[images.shape] = self._allocate(images.shape)
            binding, options, received, returned = self._shapes[images.shape]
            received.update_inplace(images)
            self._session.run_with_iobinding(binding, options)
            self._captured.shapes.add(images.shape)
            return returned.numpy()

    def resident(self, images: Images) -> Callable[[], None]:
        """Run again and again on the images as they lie on the device; each call returns when the result is there."""
        self.run(images)
        binding, options, _, _ = self._shapes[images.shape]
        return lambda: self._session.run_with_iobinding(binding, options)  # waits for the device at its end

    def _allocate(self, shape: tuple[int, ...]) -> tuple[Any, Any, Any, Any]:
        new = ORT.OrtValue.ortvalue_from_shape_and_type
        received = new(shape, np.float32, self._device, 0)
        returned = new((shape[0], _outputs(self._session)), np.float32, self._device, 0)
        binding = self._session.io_binding()
        binding.bind_ortvalue_input(INPUT_NAME, received)
        binding.bind_ortvalue_output(OUTPUT_NAME, returned)
        options = ORT.RunOptions()
        options.add_run_config_entry("gpu_graph_id", str(len(self._shapes) + 1))
        return binding, options, received, returned


def _outputs(session: Any) -> int:
    return int(session.get_outputs()[0].shape[1])


def _input_spec(session: Any) -> InputSpec:
    shape: list[int | str] = session.get_inputs()[0].shape  # a dynamic dimension is given by its name
    return InputSpec.of_shape([length if isinstance(length, int) else None for length in shape])


def open_session(path: Path, threads: int, providers: list[Any], profile: Path | None = None) -> Any:
    """A session with `threads` threads (0: its own choice).

    Args:
        profile: record what each node takes; the file's name begins so, and `end_profiling` returns it.

    Raises:
        ArtifactError: the file cannot be loaded, or was not exported by LeanFace.
    """
    options = ORT.SessionOptions()
    options.intra_op_num_threads = threads
    options.inter_op_num_threads = 1
    options.log_severity_level = 3
    if profile is not None:
        options.enable_profiling, options.profile_file_prefix = True, str(profile)
    # Threads that keep spinning after a run would slow down whatever else runs in turns with this.
    options.add_session_config_entry("session.force_spinning_stop", "1")
    try:
        if overflows_here(path):  # unless each Q/DQ pair and convolution is computed for itself, in float32
            options.add_session_config_entry("session.disable_quant_qdq", "1")
        session = ORT.InferenceSession(str(path), options, providers=providers)
    except Exception as error:  # its exceptions have no common public base
        raise ArtifactError(f"onnxruntime cannot load {path}: {error}\nExport it again.") from error
    check_names(path, [i.name for i in session.get_inputs()], [o.name for o in session.get_outputs()])
    return session
