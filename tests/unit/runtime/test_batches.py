"""Any number of images through networks of free, bounded and fixed batches."""

from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest

from leanface.errors import BackendError
from leanface.runtime import open_runtime
from leanface.runtime.batches import run_in_batches


def fixed(path: Path, size: int, target: Path) -> Path:
    """The network with a batch of exactly this size."""
    model = onnx.load(str(path))
    for value in (*model.graph.input, *model.graph.output):
        dimension = value.type.tensor_type.shape.dim[0]
        dimension.Clear()
        dimension.dim_value = size
    del model.graph.value_info[:]
    onnx.save(model, str(target))
    return target


@pytest.mark.parametrize("runtime", ["openvino", "onnxruntime"])
@pytest.mark.parametrize("size", [1, 4])
def test_a_fixed_batch_takes_any_number(exported: Any, tmp_path: Path, images: Any, runtime: str, size: int) -> None:
    many = np.concatenate([images.numpy(), images.numpy()[::-1] * np.float32(0.5), images.numpy()[:1] ** 2])
    path = fixed(exported.fp32, size, tmp_path / "fixed.onnx")
    with open_runtime(runtime, exported.fp32, 1) as free, open_runtime(runtime, path, 1) as bound:
        expected = free.run(np.ascontiguousarray(many))
        for count in (1, 3, 4, 5, 9):
            rows = run_in_batches(bound, np.ascontiguousarray(many[:count]))
            assert rows.shape == (count, 257)
            np.testing.assert_allclose(rows, expected[:count], atol=2e-4)
            np.testing.assert_array_equal(run_in_batches(free, many[:count]), free.run(many[:count]))
        if size > 1:
            with pytest.raises(BackendError, match=f"a batch of {size}, got 1"):
                bound.run(many[:1])  # a runtime itself never pads


def test_no_images_are_refused(exported: Any, images: Any) -> None:
    with open_runtime("onnxruntime", exported.fp32, 1) as runtime, pytest.raises(BackendError, match="got 0"):
        run_in_batches(runtime, images.numpy()[:0])
