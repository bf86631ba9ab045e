"""The INT8 kernels in Triton's interpreter: each layer against the file's meaning in float64, and against ONNX Runtime.

Integer sums are exact, and so is every level but where the value before rounding lies within float32's error of a
rounding boundary. There a level may be one off, and the layers behind it follow.
"""

from collections.abc import Callable
from pathlib import Path

import numpy as np
import onnx
import onnxruntime
import pytest
import torch

from leanface import bundle
from leanface.errors import BackendError
from leanface.export.onnx import export_network, save_model
from leanface.networks.inference import HalfPrecision, inference_form
from leanface.networks.interface import INPUT_NAME, OUTPUT_NAME
from leanface.networks.quantized import Quantizer
from leanface.networks.resnet import build_network, scaled_widths
from leanface.quantization.fake_quantize import fake_quantize
from leanface.runtime.base import planes_of
from leanface.runtime.int8.plan import Convolution, Plan, read_plan
from leanface.runtime.int8.tuning import REFERENCE_GPU, REPEATED_BLOCKS, Problem, Tile, default_tile
from leanface.runtime.onnxruntime_ import OnnxRuntime
from leanface.runtime.triton_ import checked_image, require_agreement
from tests.unit.runtime import int8_twin as twin

pytest.importorskip("triton", reason="Triton is not installed: `pip install triton`")
if torch.cuda.is_available():
    pytest.skip("Triton interprets its kernels only where conftest.py found no GPU", allow_module_level=True)

HEIGHT, WIDTH = 64, 80


def executor(plan: Plan, images: int, *, share: bool = True, tile: Callable[[Problem], Tile] | None = None):
    from leanface.runtime.int8.executor import Executor, Weights

    return Executor(Weights(plan, torch.device("cpu")), HEIGHT, WIDTH, images, tile or large_tile, share_memory=share)


def large_tile(problem: Problem) -> Tile:
    """Few programs: each costs the interpreter time."""
    tile = default_tile(problem, REFERENCE_GPU._replace(multiprocessors=1))
    return tile if problem.mean else tile._replace(m=1024)


def as_far_as_it_goes(tile: Tile, problem: Problem) -> Tile:
    """The tile for a layer, without what cannot be done there."""
    tile = tile._replace(together=min(tile.together, problem.together))
    blocks = problem.rows * -(-problem.widened(tile.together).run // tile.k)
    return tile if blocks <= REPEATED_BLOCKS else tile._replace(repeats=1)


def coefficients_of(executor, pixels: np.ndarray) -> np.ndarray:
    found = torch.full((len(pixels), 257), torch.nan)
    executor.run(torch.from_numpy(pixels), found)
    return found.numpy()


def distance(got: np.ndarray, expected: np.ndarray) -> float:
    return float(np.linalg.norm(got - expected) / np.linalg.norm(expected))


@pytest.fixture(scope="module")
def plan(exported) -> Plan:
    return read_plan(exported.int8)


@pytest.fixture(scope="module")
def pixels(smooth_images) -> np.ndarray:
    """A picture, and black and white noise beside almost pure white: (2, HEIGHT, WIDTH, 3)."""
    generator = np.random.default_rng(0)
    smooth = np.tile((255 * smooth_images(1, 3).numpy()).astype(np.uint8).transpose(0, 2, 3, 1), (1, 1, 2, 1))
    odd = 255 * generator.integers(0, 2, (1, HEIGHT, WIDTH, 3), dtype=np.uint8)
    odd[:, :, : WIDTH // 2] = generator.integers(253, 256, (1, HEIGHT, WIDTH // 2, 3), dtype=np.uint8)
    return np.concatenate([smooth[:, :HEIGHT, :WIDTH], odd])


@pytest.fixture(scope="module")
def computed(plan: Plan, pixels: np.ndarray):
    """The executor after a run, all maps kept, and the coefficients."""
    kept = executor(plan, len(pixels), share=False)
    return kept, coefficients_of(kept, pixels)


def test_each_layer_is_what_the_file_says_in_float64(computed, pixels: np.ndarray) -> None:
    kept, coefficients = computed
    exact = twin.check_layers(kept, pixels)
    assert np.abs(coefficients - exact).max() < 1e-5 * np.abs(exact).max()


def onnxruntimes_levels(path: Path, pixels: np.ndarray) -> dict[str, np.ndarray]:
    """What ONNX Runtime quantizes, by the name of the convolution before, or of the pooling; as they are stored."""
    model = onnx.load(path)
    producers = {name: node for node in model.graph.node for name in node.output}

    def origin(name: str) -> str:
        node = producers[name]
        if node.op_type == "MaxPool":
            return node.name
        if node.op_type == "Conv":
            return producers[node.input[1]].input[0].partition(".weight")[0]
        before = [i for i in node.input if i in producers and producers[i].op_type != "DequantizeLinear"]
        return origin(before[0])

    quantized = [node for node in model.graph.node if node.op_type == "QuantizeLinear" and node.input[0] in producers]
    model.graph.output.extend(onnx.ValueInfoProto(name=node.output[0]) for node in quantized)
    options = onnxruntime.SessionOptions()
    options.graph_optimization_level = onnxruntime.GraphOptimizationLevel.ORT_DISABLE_ALL
    session = onnxruntime.InferenceSession(model.SerializeToString(), options)
    found = session.run([node.output[0] for node in quantized], {INPUT_NAME: planes_of(pixels)})
    return {
        origin(node.input[0]): (levels.astype(int) - (128 if levels.dtype == np.uint8 else 0))
        .astype(np.int8)
        .transpose(0, 2, 3, 1)
        for node, levels in zip(quantized, found, strict=True)
    }


def test_each_layer_is_onnxruntimes_of_the_same_inputs(exported, plan: Plan, pixels: np.ndarray) -> None:
    """Each reads what ONNX Runtime's layer before it has written, so that no difference travels."""
    theirs = onnxruntimes_levels(exported.int8, pixels)
    kept = executor(plan, len(pixels), share=False)
    calls = kept.calls(torch.from_numpy(pixels), torch.empty((len(pixels), 257)))
    calls["image"].queue()
    compared = 0
    for step in plan.steps:
        calls[step.name].queue()
        if step.name not in theirs or step.target is None:  # before the pooling, or the mean: not quantized there
            continue
        got, expected = kept.levels(step.target.name), theirs[step.name]
        assert np.abs(got.numpy().astype(int) - expected).max() <= 1, step.name
        assert (got.numpy() != expected).mean() < 1e-3, step.name
        got.copy_(torch.from_numpy(expected))
        compared += 1
    assert compared == len(plan.steps) - 2


def test_the_whole_network_answers_as_onnxruntime_does(exported, computed, plan: Plan, pixels: np.ndarray) -> None:
    _, coefficients = computed
    session = onnxruntime.InferenceSession(exported.int8)
    theirs = session.run([OUTPUT_NAME], {INPUT_NAME: planes_of(pixels)})[0]
    exact = twin.whole_network(plan, pixels)
    # Rounding ties part the ways, of ONNX Runtime from the exact answer just as of these kernels.
    assert distance(coefficients, exact) < 0.05
    assert distance(coefficients, theirs) < 0.05
    assert distance(coefficients, theirs) < 3 * max(distance(theirs, exact), 0.01)


def test_floats_and_their_bytes_become_the_same_levels(computed, pixels: np.ndarray) -> None:
    kept, _ = computed
    nothing = torch.empty((len(pixels), 257))
    expected = kept.folded().clone()
    kept.folded().fill_(99)
    kept.calls(torch.from_numpy(planes_of(pixels)), nothing)["image"].queue()
    assert torch.equal(kept.folded(), expected)


def test_maps_that_take_turns_in_memory_do_not_disturb_each_other(computed, plan: Plan, pixels: np.ndarray) -> None:
    kept, coefficients = computed
    shared = executor(plan, len(pixels))
    assert np.array_equal(coefficients_of(shared, pixels), coefficients)
    # A smaller batch uses a part of the memory, and finds there what the larger one has left.
    assert np.allclose(coefficients_of(shared, pixels[1:]), coefficients[1:], atol=1e-6)
    assert shared.size_bytes() < kept.size_bytes() / 2


@pytest.mark.parametrize(
    "tile",
    [
        Tile(32, 32, 32),
        Tile(128, 64, 64),
        Tile(64, 256, 128, 8, 2),
        Tile(32, 64, 128, repeats=4),
        Tile(64, 64, 32, together=2),
        Tile(32, 64, 64, together=2, repeats=4),
        Tile(64, 64, 64, together=4),
    ],
)
def test_a_tile_changes_nothing(computed, plan: Plan, pixels: np.ndarray, tile: Tile) -> None:
    kept, _ = computed
    other = executor(plan, len(pixels), share=False, tile=lambda problem: as_far_as_it_goes(tile, problem))
    calls = other.calls(torch.from_numpy(pixels), torch.empty((len(pixels), 257)))
    chosen = [step for step in plan.steps if isinstance(step, Convolution) and step.target is not None]
    for step in (*chosen[-4:], chosen[1]):  # the smallest maps, and one of the largest
        other.levels(step.source.name).copy_(kept.levels(step.source.name))
        if step.residual is not None:
            other.levels(step.residual.name).copy_(kept.levels(step.residual.name))
        calls[step.name].queue()
        assert torch.equal(other.levels(step.name), kept.levels(step.name)), step.name


def test_widths_in_multiples_of_8_and_odd_sizes(smooth_images, pixels: np.ndarray, tmp_path: Path) -> None:
    torch.manual_seed(0)
    network, quantizer = build_network(scaled_widths(1 / 8)).eval(), Quantizer(residual=True)
    quantized = fake_quantize(network, smooth_images(4, 0), quantizer)
    spec = bundle.new_spec(network, 64).model_copy(update={"quantizer": quantizer.model_dump()})
    save_model(export_network(quantized, spec, "int8", opset=19), tmp_path / "odd.onnx", {})
    plan = read_plan(tmp_path / "odd.onnx")
    widths = {len(step.weights) for step in plan.steps if isinstance(step, Convolution)}
    assert any(width % 16 for width in widths)
    got = coefficients_of(executor(plan, 1), pixels[:1])
    assert distance(got, twin.whole_network(plan, pixels[:1])) < 0.05


def test_kernels_that_compute_something_else_are_refused(exported, plan: Plan) -> None:
    pixels = checked_image(HEIGHT)
    with OnnxRuntime(exported.int8) as reference:
        expected = reference.run(pixels)
    got = twin.whole_network(plan, pixels).astype(np.float32)
    require_agreement(got, expected, "this GPU")
    for wrong in (-got, np.full_like(got, np.nan), np.zeros_like(got), np.roll(got, 1, axis=1)):
        with pytest.raises(BackendError, match=r"not compute on this GPU what ONNX Runtime computes.*openvino"):
            require_agreement(wrong, expected, "this GPU")


@pytest.mark.parametrize("as_bytes", [True, False])
def test_fp16_s_first_layers_are_pytorchs(small_network, pixels: np.ndarray, as_bytes: bool) -> None:
    from leanface.runtime.int8.half_stem import HalfStem

    first = inference_form(small_network).get_submodule("backbone.conv1")
    assert isinstance(first, torch.nn.Conv2d)
    planes = torch.from_numpy(planes_of(pixels))
    with torch.inference_mode():
        expected = torch.nn.functional.max_pool2d(first(planes).relu(), 3, 2, 1)
        got = HalfStem(first)(torch.from_numpy(pixels) if as_bytes else planes)
    assert got.dtype == torch.float16
    assert got.is_contiguous(memory_format=torch.channels_last)
    assert float((got - expected).norm() / expected.norm()) < 2e-3


def test_a_network_in_fp16_with_these_layers_answers_as_without(small_network, pixels: np.ndarray) -> None:
    from leanface.runtime.int8.half_stem import HalfStem

    images = torch.from_numpy(pixels)
    with torch.inference_mode():
        expected = small_network(torch.from_numpy(planes_of(pixels)))
        for stem in (None, HalfStem):
            got = HalfPrecision(small_network, stem=stem)(images)
            assert distance(got.numpy(), expected.numpy()) < 1e-2
