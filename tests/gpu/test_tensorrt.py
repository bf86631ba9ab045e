"""TensorRT's lean runtime: it loads, and refuses what it cannot run."""

import json
from pathlib import Path

import pytest

from leanface.errors import BackendError
from leanface.runtime import open_runtime
from leanface.runtime.engine import load_tensorrt


@pytest.fixture
def plan(tmp_path: Path) -> Path:
    """A file that no TensorRT made, described as a version-compatible engine."""
    pytest.importorskip("tensorrt_lean_bindings", reason="the lean runtime is not installed")
    if load_tensorrt(["tensorrt", "tensorrt_lean"])[0] == "tensorrt":
        pytest.skip("full TensorRT is installed, and comes first")
    path = tmp_path / "network.plan"
    path.write_bytes(bytes(1024))
    path.with_suffix(".json").write_text(
        json.dumps({"library": "tensorrt", "targets": ["current"], "options": {"version_compatible": True}})
    )
    return path


def test_a_plan_that_it_does_not_know_is_refused(plan: Path) -> None:
    with pytest.raises(BackendError, match=r"tensorrt_lean cannot load .*network\.plan on this GPU: .+"):
        open_runtime("tensorrt", plan)


def test_an_engine_that_is_not_version_compatible_needs_full_tensorrt(plan: Path) -> None:
    plan.with_suffix(".json").write_text(json.dumps({"library": "tensorrt", "targets": ["current"], "options": {}}))
    with pytest.raises(BackendError, match="tensorrt: No module"):
        open_runtime("tensorrt", plan)
