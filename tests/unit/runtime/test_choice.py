"""`auto`: the best runtime that can run here, and why the better ones were not taken."""

from pathlib import Path

import numpy as np
import pytest

from leanface import catalog, paths
from leanface.catalog import RUNTIMES
from leanface.device import has_vnni
from leanface.errors import ArtifactError, BackendError
from leanface.runtime import exported_files_of, files_of, flavored_files, open_all, open_best


def test_what_cannot_run_is_skipped_with_its_reason(exported, tmp_path: Path) -> None:
    files = {"torch": exported.float_bundle, "onnxruntime": exported.fp32, "openvino": tmp_path / "gone.onnx"}
    runtime, skipped = open_best(files)
    with runtime:
        assert runtime.name == "onnxruntime"
        assert runtime.run(np.zeros((1, 3, 64, 64), np.float32)).shape == (1, 257)
    assert list(skipped) == ["openvino"]
    assert "gone.onnx is missing" in skipped["openvino"]


def test_the_int8_file_goes_to_the_runtime_that_computes_int8(exported) -> None:
    files = dict.fromkeys(catalog.readers_of("onnx"), exported.int8)
    runtime, skipped = open_best(files | {"tensorrt": exported.int8.with_suffix(".plan")}, threads=1, streams=2)
    with runtime:
        assert runtime.streams == 2
        better = list(RUNTIMES)[: list(RUNTIMES).index(runtime.name)]
        assert set(skipped) == {name for name in better if name in {*files, "tensorrt"}}
        if "triton_int8" in skipped:
            assert "GPU" in skipped["triton_int8"] or "Triton" in skipped["triton_int8"]
            assert runtime.name == "openvino"
            assert "onnxruntime-gpu" in skipped["onnxruntime_cuda"] or "GPU" in skipped["onnxruntime_cuda"]


@pytest.mark.parametrize("vnni", [True, False])
def test_the_cpu_flavor_is_for_processors_that_compute_it_exactly(vnni: bool, tmp_path: Path) -> None:
    tensorrt, cpu = tmp_path / "tensorrt.onnx", tmp_path / "cpu.onnx"
    cpu.touch()
    files = flavored_files(tensorrt, cpu, vnni=vnni)
    assert set(files) == set(catalog.readers_of("onnx"))
    for name, path in files.items():
        assert path == (cpu if vnni and not RUNTIMES[name].on_gpu else tensorrt), name
    cpu.unlink()
    assert set(flavored_files(tensorrt, cpu, vnni=vnni).values()) == {tensorrt}


def test_all_that_can_run_are_open_until_the_end_and_the_others_have_a_reason(exported, tmp_path: Path) -> None:
    files = {"onnxruntime": exported.fp32, "openvino": exported.fp32, "onnxruntime_cuda": exported.fp32}
    with open_all(files) as (runtimes, skipped):
        assert {runtime.name for runtime in runtimes} | set(skipped) == set(files)
        assert {runtime.name for runtime in runtimes} >= {"onnxruntime", "openvino"}
        assert all(skipped.values())
    with pytest.raises(BackendError, match="closed"):
        runtimes[0].run(np.zeros((1, 3, 64, 64), np.float32))
    (tmp_path / "broken.onnx").write_bytes(b"no network")
    with pytest.raises(ArtifactError, match=r"broken\.onnx"), open_all({"openvino": tmp_path / "broken.onnx"}):
        pass


def test_when_nothing_can_run_every_reason_is_told(tmp_path: Path) -> None:
    files = {"torch": tmp_path / "bundle", "openvino": tmp_path / "file.onnx"}
    with pytest.raises(BackendError, match=r"(?s)openvino: .*file\.onnx is missing.*torch: .*bundle is missing"):
        open_best(files)
    (tmp_path / "file.onnx").write_bytes(b"no network")
    with pytest.raises(
        BackendError, match=r"can run any of \S+file\.onnx:\n.*openvino: OpenVINO cannot load \S+file\.onnx"
    ):
        open_best(dict.fromkeys(("openvino", "onnxruntime"), tmp_path / "file.onnx"))


def test_pytorch_runs_only_what_it_does_not_have_to_simulate() -> None:
    readers = {variant: set(files_of(variant)) for variant in catalog.VARIANTS}
    halves, floats = {"torch_cuda_graph"}, {"torch", "torch_cuda"}
    kernels = {"triton_int8"}  # which compute INT8 alone
    assert readers["teacher_fp32"] == set(RUNTIMES) - halves - kernels
    assert readers["teacher_fp16"] == readers["distilled_fp16"] == set(RUNTIMES) - floats - kernels
    assert readers["quantized_int8"] == set(RUNTIMES) - floats - halves
    assert readers["cpu_int8"] == {"openvino", "onnxruntime"}
    assert files_of("distilled_fp32")["torch"] == paths.DISTILLED
    assert set(exported_files_of("teacher_fp32")) == set(files_of("teacher_fp32")) - {"torch", "torch_cuda"}


@pytest.mark.parametrize("isa", ["AVX2", "avx512_core"])
def test_without_vnni_for_onednn_there_is_none(isa: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("ONEDNN_MAX_CPU_ISA", isa)
    assert not has_vnni()
