"""What is to be measured, and what becomes of a measurement that fails."""

from pathlib import Path

import numpy as np
import pytest
import torch

from leanface import catalog
from leanface.catalog import RUNTIMES
from leanface.errors import ArtifactError, BackendError
from leanface.runtime import Runtime, files_of
from leanface.runtime.base import InputSpec
from leanface.runtime.bench import bench_file
from leanface.runtime.benchmark import (
    Key,
    _noting,  # pyright: ignore[reportPrivateUsage]
    plan,
)
from tests.settings import BENCHMARK


def test_every_network_is_to_be_measured_in_every_runtime_that_reads_it():
    entries = plan(BENCHMARK)
    found = {(entry.variant, entry.runtime) for entry in entries}
    assert len(found) == len(entries)
    assert found == {(variant, runtime) for variant in catalog.EVALUATED for runtime in files_of(variant)}
    assert entries[0].variant == catalog.BASELINE, "the baseline must not be what the time is too short for"
    for entry in entries:
        assert entry.path == files_of(entry.variant)[entry.runtime]
        assert entry.streams == ((1, 2) if catalog.VARIANTS[entry.variant].concurrent else (1,))


def test_a_gpus_plan_begins_with_the_baseline():
    settings = BENCHMARK.model_copy(update={"runtimes": "gpu"})
    entries = plan(settings)
    assert {entry.runtime for entry in entries} == {name for name, runtime in RUNTIMES.items() if runtime.on_gpu}
    assert len({entry[:2] for entry in entries}) == len(entries)
    assert all(entry.path == files_of(entry.variant)[entry.runtime] for entry in entries)
    floats = {entry.runtime for entry in entries if entry.variant.endswith("fp32")}
    assert floats == {"torch_cuda"}, "on a GPU FP32 is the baseline's alone"
    assert entries[0][:2] == ("teacher_fp32", "torch_cuda"), "the baseline must not be what the time is too short for"


def test_a_file_that_is_not_ours_is_refused(tmp_path):
    (tmp_path / "odd.onnx").write_bytes(b"odd")
    with pytest.raises(ArtifactError, match=r"odd\.onnx"):
        bench_file(tmp_path / "odd.onnx", BENCHMARK)


def test_a_failure_is_noted_once_and_the_call_not_made_again():
    calls, failures = [], {}
    key = Key("teacher_fp32", "torch", 1)

    def fails() -> None:
        calls.append(key)
        raise BackendError("no more")

    noting = _noting(failures, key, fails)
    noting()
    noting()
    assert len(calls) == 1
    assert str(failures[key]) == "no more"
    assert isinstance(failures[key], BackendError)


def test_a_call_that_works_is_made_every_time():
    calls, failures = [], {}
    noting = _noting(failures, Key("teacher_fp32", "torch", 1), lambda: calls.append(1))
    noting()
    noting()
    assert calls == [1, 1]
    assert not failures


class Full(Runtime):
    """Answers once; then the GPU's memory is full."""

    name = "full"
    outputs = 257

    def _open(self, path: Path, threads: int, streams: int) -> InputSpec:
        return InputSpec()

    def _infer(self, images, stream):
        return np.zeros((len(images), 257), np.float32)

    def _resident(self, images, stream):
        def call() -> None:
            raise torch.OutOfMemoryError("no more")

        return call

    def _close(self) -> None: ...


def test_a_full_gpu_costs_its_row_only(tmp_path):
    key, failures = Key("teacher_fp32", "torch", 1), {}
    with Full(tmp_path) as full:
        call = full.resident(np.zeros((1, 3, 64, 64), np.float32))
        with pytest.raises(BackendError, match="full failed: OutOfMemoryError: no more"):
            call()
        _noting(failures, key, call)()
    assert "no more" in str(failures[key])
    assert isinstance(failures[key], BackendError)
