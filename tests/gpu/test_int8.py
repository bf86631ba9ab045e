"""INT8 on a GPU by our own kernels: what each layer computes there, groups, tiles, streams, and how soon it starts."""

import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import torch

from leanface import paths
from leanface.runtime import Pool, open_runtime, pipelined
from leanface.runtime.base import planes_of
from leanface.runtime.int8.plan import read_plan
from leanface.runtime.int8.tuning import default_tile
from leanface.runtime.torch_ import TorchGraphRuntime
from leanface.runtime.triton_ import TritonInt8Runtime, first_gpu
from tests.unit.runtime import int8_twin as twin

pytest.importorskip("triton")


def noise(count: int, height: int, width: int, seed: int = 0) -> np.ndarray:
    return np.random.default_rng(seed).integers(0, 256, (count, height, width, 3), dtype=np.uint8)


def distance(got: np.ndarray, expected: np.ndarray) -> float:
    return float(np.linalg.norm(got - expected) / np.linalg.norm(expected))


@pytest.mark.parametrize(("images", "height", "width"), [(1, 64, 64), (3, 64, 80), (2, 224, 224)])
def test_each_layer_is_what_the_file_says_in_float64(images: int, height: int, width: int) -> None:
    from leanface.runtime.int8.executor import Executor, Weights

    gpu, pixels = first_gpu(), noise(images, height, width)
    weights = Weights(read_plan(paths.PACKAGED_MODEL), torch.device("cuda", 0))
    executor = Executor(weights, height, width, images, lambda problem: default_tile(problem, gpu), share_memory=False)
    for given in (pixels, planes_of(pixels)):
        coefficients = torch.full((images, 257), torch.nan, device="cuda")
        executor.run(torch.from_numpy(given).cuda(), coefficients)
        exact = twin.check_layers(executor, pixels)
        assert np.abs(coefficients.cpu().numpy() - exact).max() < 1e-5 * np.abs(exact).max()


def test_a_batch_in_groups_is_the_same_as_one_by_one(exported) -> None:
    class InGroups(TritonInt8Runtime):
        PIXELS_AT_ONCE = 3 * 64 * 64

    pixels = noise(8, 64, 64)
    with InGroups(exported.int8) as runtime:
        together = runtime.run(pixels)
        alone = np.concatenate([runtime.run(pixels[index : index + 1]) for index in range(8)])
    assert distance(together, alone) < 1e-6


def test_memory_that_grows_takes_the_graphs_with_it(exported) -> None:
    pixels = noise(16, 64, 64)
    with open_runtime("triton_int8", exported.int8) as runtime:
        for count in (1, 16, 1, 5, 16):
            assert distance(runtime.run(pixels[:count]), runtime.run(pixels)[:count]) < 1e-6


def test_a_batch_that_lies_on_the_gpu_keeps_its_memory(exported) -> None:
    pixels = noise(16, 64, 64)
    with open_runtime("triton_int8", exported.int8) as runtime:
        call = runtime.resident(pixels[:2])
        expected = runtime.run(pixels)
        others = [torch.full((1 << 22,), 77, dtype=torch.int8, device="cuda") for _ in range(8)]
        call()
        assert all(bool((other == 77).all()) for other in others)
        assert distance(runtime.run(pixels), expected) < 1e-6


def test_small_and_large_batches_have_kernels_of_their_own(exported) -> None:
    """Their kernels differ where one split of L1 memory is for the small ones alone."""
    pixels = noise(256, 64, 64)
    with open_runtime("triton_int8", exported.int8) as runtime:
        alone = runtime.run(pixels[:1])
        together = runtime.run(pixels)
        assert distance(together[:1], alone) < 1e-6
        assert distance(runtime.run(pixels[:1]), alone) < 1e-6


def test_tiles_are_measured_and_change_nothing(exported, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from leanface.runtime.int8.tuner import tune_here

    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    pixels = noise(4, 64, 64)
    with open_runtime("triton_int8", exported.int8) as runtime:
        expected = runtime.run(pixels)
    gains = tune_here(exported.int8, (4,), 64)
    assert gains["4"] >= 1.0
    assert list(tmp_path.rglob("*.json"))
    with open_runtime("triton_int8", exported.int8) as runtime:
        assert distance(runtime.run(pixels), expected) < 1e-6


@pytest.mark.parametrize("name", ["triton_int8", "torch_cuda_graph"])
def test_one_thread_keeps_many_streams_busy_and_none_disturbs_another(name: str, exported) -> None:
    path = exported.int8 if name == "triton_int8" else exported.float_bundle
    batches = [noise(1 + seed % 3, 64, 64, seed) for seed in range(6)]
    with open_runtime(name, path, streams=4) as runtime:
        assert runtime.is_asynchronous
        expected = [runtime.run(batch) for batch in batches]
        for got, right in zip(pipelined(runtime, batches * 20), expected * 20, strict=True):
            assert distance(got, right) < 1e-6
        with Pool(runtime) as pool:
            for future, right in zip([pool.submit(batch) for batch in batches * 20], expected * 20, strict=True):
                assert distance(future.result(), right) < 1e-6


def test_fp16_s_first_layers_by_triton_answer_as_cudnns(exported, monkeypatch: pytest.MonkeyPatch) -> None:
    pixels = noise(4, 64, 64)
    with TorchGraphRuntime(exported.float_bundle) as runtime:
        by_triton = runtime.run(pixels)
    monkeypatch.setattr("leanface.runtime.torch_.triton_stem", lambda: None)
    with TorchGraphRuntime(exported.float_bundle) as runtime:
        assert distance(by_triton, runtime.run(pixels)) < 1e-2


def test_it_starts_soon(tmp_path: Path) -> None:
    """Cold, with every kernel to compile, and warm, from Triton's cache; the libraries' own import apart."""
    program = (
        "import sys, time, numpy, torch, triton\n"
        "from pathlib import Path\n"
        "from leanface.runtime import open_runtime\n"
        "torch.zeros(1, device='cuda')\n"
        "start = time.perf_counter()\n"
        "open_runtime('triton_int8', Path(sys.argv[1])).run(numpy.zeros((1, 224, 224, 3), numpy.uint8))\n"
        "print(time.perf_counter() - start)\n"
    )
    environment = os.environ | {"TRITON_CACHE_DIR": str(tmp_path), "PYTHONPATH": os.pathsep.join(sys.path)}
    command = [sys.executable, "-c", program, str(paths.PACKAGED_MODEL)]
    cold, warm = (
        float(subprocess.run(command, env=environment, capture_output=True, text=True, check=True).stdout)
        for _ in range(2)
    )
    print(f"cold {cold:.1f} s, warm {warm:.2f} s")
    assert warm < cold
