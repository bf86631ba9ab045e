"""The INT8 kernels compiled for GPUs that are not here: they use the tensor cores, and what a multiprocessor has."""

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

pytest.importorskip("triton", reason="Triton is not installed: `pip install triton`")

GPUS = {"80": (108, 166_912), "90": (132, 232_448), "120": (170, 101_376)}
"""By compute capability: multiprocessors, and shared memory that one block may have."""

PROGRAM = """
import json, sys
from pathlib import Path
import torch
from leanface.runtime.int8.executor import Executor, Weights
from leanface.runtime.int8.plan import read_plan
from leanface.runtime.int8.tuning import Gpu, default_tile

weights = Weights(read_plan(Path(sys.argv[1])), torch.device("cpu"))
found = {}
for capability, (multiprocessors, shared_bytes) in json.loads(sys.argv[2]).items():
    gpu = Gpu("", int(capability), multiprocessors, shared_bytes)
    executor = Executor(weights, 64, 64, 8, lambda problem: default_tile(problem, gpu), chained=gpu.chains)
    calls = executor.calls(torch.zeros((8, 64, 64, 3), dtype=torch.uint8), torch.zeros((8, 257)))
    last = list(calls)[-2]
    for name in ("image", "backbone.layer2.0.conv2", "backbone.layer3.1.conv3", last, "heads"):
        kernel = calls[name].compilation().run(gpu.capability)
        found[f"{capability} {name}"] = kernel.metadata.shared, kernel.asm["ptx"], len(kernel.asm["cubin"])
print(json.dumps(found))
"""


def test_they_compile_for_each_generation_without_a_gpu(exported, tmp_path: Path) -> None:
    environment = {name: value for name, value in os.environ.items() if name != "TRITON_INTERPRET"}
    environment |= {"TRITON_CACHE_DIR": str(tmp_path), "PYTHONPATH": os.pathsep.join(sys.path)}
    command = [sys.executable, "-c", PROGRAM, str(exported.int8), json.dumps(GPUS)]
    ended = subprocess.run(command, env=environment, capture_output=True, text=True, check=False)
    assert ended.returncode == 0, ended.stderr
    found = json.loads(ended.stdout)
    assert len(found) == 5 * len(GPUS)
    for name, (shared_bytes, assembly, size_bytes) in found.items():
        assert size_bytes > 1000, name
        assert shared_bytes <= GPUS[name.partition(" ")[0]][1], name
        # Integers of 8 bits are multiplied by the tensor cores: mma.sync.....s8.s8, or Hopper's wgmma.
        assert (".s8.s8" in assembly) == (not name.endswith(" image")), name
        assert ("griddepcontrol.wait" in assembly) == (not name.startswith("80 ")), name
