"""Every runtime keeps the one contract, whatever is behind it."""

from collections.abc import Iterator
from pathlib import Path

import numpy as np
import onnx
import pytest
from torch import Tensor

from leanface.bundle import load_bundle
from leanface.catalog import RUNTIMES
from leanface.errors import ArtifactError, BackendError
from leanface.runtime import Runtime, open_runtime, pipelined
from leanface.runtime.base import planes_of
from leanface.runtime.engine import build_engine
from tests.settings import BUILD

BUNDLE_READERS = ("torch", "torch_cuda", "torch_cuda_graph")
FILE_READERS = [name for name in RUNTIMES if name not in (*BUNDLE_READERS, "triton_int8")]
CASES = [
    *((runtime, precision) for runtime in ("torch", "torch_cuda") for precision in ("fp32", "int8")),
    ("torch_cuda_graph", "fp16"),
    ("triton_int8", "int8"),
    *((name, precision) for name in FILE_READERS for precision in ("fp32", "fp16", "int8")),
]
STREAMS = 3
TOLERANCES = {"fp32": 1e-4, "fp16": 1e-2, "int8": 3e-2}


def artifact(runtime: str, exported, precision: str) -> Path:
    """What this runtime reads."""
    if runtime in BUNDLE_READERS:
        return exported.int8_bundle if precision == "int8" else exported.float_bundle
    source = getattr(exported, precision)
    if runtime == "tensorrt":
        plan = source.with_suffix(".plan")
        if not plan.exists():
            build_engine(source, plan, BUILD)
        return plan
    return source


def opened(name: str, exported, precision: str, streams: int = 1) -> Runtime:
    try:
        return open_runtime(name, artifact(name, exported, precision), threads=2, streams=streams)
    except BackendError as error:
        pytest.skip(f"{name} cannot run here: {error}")


@pytest.fixture(params=CASES, ids="-".join)
def case(request: pytest.FixtureRequest, exported) -> Iterator[tuple[Runtime, str]]:
    name, precision = request.param
    with opened(name, exported, precision) as runtime:
        yield runtime, precision


@pytest.fixture(params=list(RUNTIMES))
def runtime(request: pytest.FixtureRequest, exported) -> Iterator[Runtime]:
    with opened(request.param, exported, "int8" if request.param == "triton_int8" else "fp32") as runtime:
        yield runtime


def test_it_computes_what_pytorch_computes(case: tuple[Runtime, str], exported, images: Tensor) -> None:
    runtime, precision = case
    network, _ = load_bundle(exported.int8_bundle if precision == "int8" else exported.float_bundle)
    expected = network(images).detach().numpy()
    got = runtime.run(images.numpy())
    assert got.dtype == np.float32
    assert np.linalg.norm(got - expected) <= TOLERANCES[precision] * np.linalg.norm(expected)


def test_a_face_does_not_depend_on_its_batch(case: tuple[Runtime, str], images: Tensor) -> None:
    runtime, precision = case
    together, alone = runtime.run(images.numpy()), runtime.run(images[2:3].numpy())
    assert np.linalg.norm(together[2:3] - alone) <= TOLERANCES[precision] * np.linalg.norm(alone)


def test_bytes_are_their_255th_parts(case: tuple[Runtime, str], images: Tensor) -> None:
    runtime, precision = case
    pixels = np.ascontiguousarray((255 * images.numpy()).round().astype(np.uint8).transpose(0, 2, 3, 1))
    kept = pixels.copy()
    got, expected = runtime.run(pixels), runtime.run(planes_of(pixels))
    assert np.linalg.norm(got - expected) <= TOLERANCES[precision] * np.linalg.norm(expected)
    assert np.array_equal(pixels, kept)
    runtime.resident(pixels)()


def test_a_result_is_the_callers_own(runtime: Runtime, images: Tensor) -> None:
    first = runtime.run(images[:1].numpy())
    kept = first.copy()
    runtime.run(images[1:2].numpy())
    assert np.array_equal(first, kept)


def test_streams_compute_the_same_at_the_same_time(case: tuple[Runtime, str], exported, images: Tensor) -> None:
    one, precision = case
    batches = [images[index : index + 1 + index % 2].numpy() for index in (0, 1, 2, 0, 1, 2, 1, 0)]
    expected = [one.run(batch) for batch in batches]
    with opened(one.name, exported, precision, STREAMS) as many:
        for got, alone in zip(pipelined(many, batches), expected, strict=True):
            assert np.linalg.norm(got - alone) <= TOLERANCES[precision] * np.linalg.norm(alone)


@pytest.mark.parametrize("stream", [-1, 1])
def test_a_stream_that_is_not_there_is_refused(runtime: Runtime, images: Tensor, stream: int) -> None:
    with pytest.raises(BackendError, match="1 streams"):
        runtime.run(images.numpy(), stream)


def test_what_is_resident_runs_again_and_again_and_the_next_run_is_its_own(runtime: Runtime, images: Tensor) -> None:
    expected = runtime.run(images[:1].numpy())
    call = runtime.resident(images[1:3].numpy())
    for _ in range(3):
        call()
    got = runtime.run(images[:1].numpy())
    assert np.linalg.norm(got - expected) <= TOLERANCES["fp16"] * np.linalg.norm(expected)
    with pytest.raises(BackendError, match="width"):
        runtime.resident(np.zeros((1, 3, 64, 72), np.float32))


def test_it_leaves_its_input_alone(runtime: Runtime, images: Tensor) -> None:
    pictures = images.numpy()
    kept = pictures.copy()
    runtime.run(pictures)
    assert np.array_equal(pictures, kept)


@pytest.mark.parametrize(
    ("pictures", "message"),
    [
        (np.zeros((1, 3, 64, 64), np.float64), "float64"),
        (np.zeros((1, 3, 64, 64), np.float16), "float16"),
        (np.zeros((1, 3, 64, 64), np.uint8), r"uint8 of shape \(batch, height, width, 3\)"),
        (np.zeros((1, 64, 72, 3), np.uint8), "width"),
        (np.zeros((1, 64, 64, 3), np.uint8)[:, ::-1], "contiguous"),
        (np.zeros((3, 64, 64), np.float32), r"\(3, 64, 64\)"),
        (np.zeros((1, 64, 64, 3), np.float32), r"\(1, 64, 64, 3\)"),
        (np.zeros((1, 1, 64, 64), np.float32), r"\(1, 1, 64, 64\)"),
        (np.zeros((0, 3, 64, 64), np.float32), "got 0"),
        (np.zeros((1, 3, 64, 72), np.float32), "width"),
        (np.zeros((1, 3, 48, 64), np.float32), "height"),
        (np.zeros((1, 64, 64, 3), np.float32).transpose(0, 3, 1, 2), "contiguous"),
        ([[0.0]], "list"),
    ],
)
def test_what_does_not_fit_is_refused(runtime: Runtime, pictures: np.ndarray, message: str) -> None:
    with pytest.raises(BackendError, match=message):
        runtime.run(pictures)
    assert runtime.run(np.zeros((1, 3, 64, 64), np.float32)).shape == (1, 257)


def test_it_cannot_be_used_after_close(runtime: Runtime, images: Tensor) -> None:
    runtime.close()
    runtime.close()
    with pytest.raises(BackendError, match="closed"):
        runtime.run(images.numpy())


@pytest.mark.parametrize("name", RUNTIMES)
def test_a_missing_file_is_named(name: str, tmp_path: Path) -> None:
    with pytest.raises(ArtifactError, match=r"nothing\.here is missing"):
        open_runtime(name, tmp_path / "nothing.here")


@pytest.mark.parametrize("name", RUNTIMES)
@pytest.mark.parametrize("keep", [0.0, 0.5])
def test_a_damaged_file_is_named(name: str, keep: float, exported, tmp_path: Path) -> None:
    if name in BUNDLE_READERS:
        path, target = exported.float_bundle / "weights.safetensors", tmp_path / "weights.safetensors"
        (tmp_path / "spec.json").write_bytes((exported.float_bundle / "spec.json").read_bytes())
    else:
        path, target = exported.fp32, tmp_path / "damaged.onnx"
    content = path.read_bytes()
    target.write_bytes(content[: int(keep * len(content))])
    try:
        with pytest.raises(ArtifactError, match=str(tmp_path)):
            open_runtime(name, tmp_path if name in BUNDLE_READERS else target)
    except BackendError as error:
        pytest.skip(f"{name} cannot run here: {error}")


@pytest.mark.parametrize("name", ["onnxruntime", "openvino"])
def test_a_stranger_s_file_is_refused(name: str, exported, tmp_path: Path) -> None:
    model = onnx.load(exported.fp32)
    model.graph.output[0].name = model.graph.node[-1].output[0] = "logits"
    onnx.save(model, tmp_path / "stranger.onnx")
    with pytest.raises(ArtifactError, match="logits"):
        open_runtime(name, tmp_path / "stranger.onnx")


def test_an_unknown_runtime_lists_the_known_ones(exported) -> None:
    with pytest.raises(BackendError, match=", ".join(RUNTIMES)):
        open_runtime("tvm", exported.fp32)
