"""Checkpoints as people have them: loaded without running their code, or refused in a line that says what to do."""

import argparse
import copy
import functools
import io
import os
import pathlib
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import safetensors.torch
import torch
from torch import Tensor, nn

from leanface.errors import ArtifactError
from leanface.networks.checkpoint import load_weights
from leanface.networks.packed import load_packed
from leanface.networks.resnet import FaceReconstructionNet, build_network, scaled_widths

State = dict[str, Tensor]


@functools.cache
def network(seed: int = 0) -> FaceReconstructionNet:
    torch.manual_seed(seed)
    return build_network(scaled_widths(1 / 16))


def state() -> State:
    return dict(network().state_dict())


def loaded(path: Path) -> State:
    other = copy.deepcopy(network(1))
    load_weights(path, other)
    return other.state_dict()


def prefixed(state: State, prefix: str) -> State:
    return {prefix + name: value for name, value in state.items()}


LAYOUTS: dict[str, Callable[[State], Any]] = {
    "deep3dfacerecon": lambda state: {"net_recon": state, "opt_00": {"param_groups": [{"lr": 1e-4}]}},
    "bare": lambda state: state,
    "data parallel": lambda state: prefixed(state, "module."),
    "nested data parallel": lambda state: {"state_dict": prefixed(state, "module."), "epoch": 3},
    "compiled": lambda state: {"model": prefixed(state, "_orig_mod.module.")},
    "in a larger module": lambda state: {"net": prefixed(state, "net_recon.") | {"renderer.scale": torch.ones(1)}},
    "deeper": lambda state: {"checkpoint": {"model": {"state_dict": state}}},
    "with options and numbers": lambda state: {
        "model": state,
        "args": argparse.Namespace(lr=0.1, out=pathlib.PosixPath("out")),
        "best": np.float64(0.5),
        "step": np.int64(3),
    },
    "without counters": lambda state: {name: value for name, value in state.items() if "num_batches" not in name},
    "in half precision": lambda state: {name: value.half() if value.ndim else value for name, value in state.items()},
}


@pytest.mark.parametrize("layout", LAYOUTS)
def test_weights_are_found_whatever_they_are_wrapped_in(tmp_path: Path, layout: str) -> None:
    torch.save(LAYOUTS[layout](state()), tmp_path / "x.pt")
    for name, value in loaded(tmp_path / "x.pt").items():
        expected = state()[name]
        if layout == "in half precision" and expected.ndim:
            expected = expected.half().float()
        assert torch.equal(value, expected), name


def test_of_several_networks_the_usual_entry_is_taken(tmp_path: Path) -> None:
    average = {name: torch.zeros_like(value) for name, value in state().items()}
    torch.save({"ema": average, "model": state()}, tmp_path / "x.pt")
    assert torch.equal(loaded(tmp_path / "x.pt")["backbone.conv1.weight"], state()["backbone.conv1.weight"])


def test_safetensors_are_told_by_their_content(tmp_path: Path) -> None:
    safetensors.torch.save_file(prefixed(state(), "module."), tmp_path / "x.pt")
    assert torch.equal(loaded(tmp_path / "x.pt")["backbone.conv1.weight"], state()["backbone.conv1.weight"])


def saved(contents: Any) -> bytes:
    buffer = io.BytesIO()
    torch.save(contents, buffer)
    return buffer.getvalue()


class Trap:
    """Runs a command when it is unpickled."""

    def __reduce__(self) -> tuple[Callable[[str], int], tuple[str]]:
        return os.system, ("touch ran",)


def scripted() -> bytes:
    buffer = io.BytesIO()
    torch.jit.save(torch.jit.trace(nn.Linear(1, 1), torch.zeros(1, 1)), buffer)
    return buffer.getvalue()


STATE = state()

REFUSED = {
    "empty": (lambda: b"", "is empty"),
    "zeros": (lambda: bytes(4096), "is empty"),
    "a web page": (lambda: b"\n<!DOCTYPE html><html>Not found</html>", "is a web page"),
    "a pointer": (lambda: b"version https://git-lfs.github.com/spec/v1\noid sha256:0\n", "git lfs pull"),
    "text": (lambda: b"hello", "is damaged"),
    "cut": (lambda: saved(STATE)[:100_000], "is damaged"),
    "cut safetensors": (lambda: safetensors.torch.save({"a": torch.ones(9)})[:40], "is damaged"),
    "a module": (lambda: saved(nn.Linear(2, 2)), r"Python objects \(torch.nn.modules.linear.Linear\).*state_dict\(\)"),
    "a module beside weights": (lambda: saved({"net": STATE, "loss": nn.ReLU()}), "Python objects"),
    "a trap": (lambda: saved({"net_recon": STATE, "x": Trap()}), r"Python objects \(posix.system\)"),
    "a program": (scripted, "TorchScript"),
    "another network": (lambda: saved(nn.Linear(2, 2).state_dict()), r"no tensor has a name.*entries weight, bias"),
    "a tensor": (lambda: saved(torch.ones(1)), "no tensor has a name"),
    "half a network": (lambda: saved(dict(list(STATE.items())[:100])), r"of its 332 tensors are missing \(such as"),
    "a wider network": (
        lambda: saved(STATE | {"backbone.conv1.weight": torch.zeros(96, 3, 7, 7)}),
        r"1 tensors differ in kind \(such as backbone.conv1.weight: floats \[96, 3, 7, 7\], expected",
    ),
    "whole numbers": (
        lambda: saved(STATE | {"backbone.conv1.weight": STATE["backbone.conv1.weight"].to(torch.int8)}),
        "whole numbers",
    ),
    "too much": (lambda: saved(STATE | {"fc.weight": torch.zeros(1)}), r"1 tensors are not the network's \(such as fc"),
    "an unfinished training": (
        lambda: saved({"average": {}, "pytorch-lightning_version": "2", "state_dict": prefixed(STATE, "network.")}),
        "run its stage again",
    ),
}


@pytest.mark.filterwarnings("ignore::DeprecationWarning")
@pytest.mark.parametrize("kind", REFUSED)
def test_what_cannot_be_loaded_is_refused_in_one_line(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, kind: str
) -> None:
    monkeypatch.chdir(tmp_path)
    contents, says = REFUSED[kind]
    Path("x.pt").write_bytes(contents())
    with pytest.raises(ArtifactError, match=says) as caught:
        loaded(Path("x.pt"))
    message = str(caught.value)
    assert message.startswith("x.pt ")
    assert "\n" not in message
    assert len(message) < 300
    assert "weights_only" not in message
    assert not Path("ran").exists()


def test_a_packed_network_of_other_layers_is_refused_in_one_line(tmp_path: Path) -> None:
    np.savez(tmp_path / "x.npz", **{name: value.numpy() for name, value in list(STATE.items())[:9]})
    with pytest.raises(ArtifactError, match=r"of its 332 tensors are missing") as caught:
        load_packed(tmp_path / "x.npz")
    assert len(str(caught.value)) < 300
