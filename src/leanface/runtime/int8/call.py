"""A kernel with its arguments: launched, or compiled beforehand, for any GPU and without one."""

# pyright: reportMissingImports=false, reportMissingModuleSource=false

import ctypes
from collections.abc import Iterable, Mapping
from concurrent.futures import Executor
from dataclasses import dataclass
from typing import Any, NamedTuple

import torch
import triton
from torch import Tensor

from leanface.runtime.int8 import kernels

TRITON: Any = triton
"""It has no types, and is not installed wherever this is checked."""

POINTERS = {
    torch.int8: "*i8",
    torch.uint8: "*u8",
    torch.int32: "*i32",
    torch.float16: "*fp16",
    torch.float32: "*fp32",
}
"""Triton's names."""

PREFERRED_SHARED_MEMORY_CARVEOUT = 9
"""CUfunction_attribute in cuda.h."""

ALIGNMENT = 16
"""Bytes: what Triton distinguishes pointers and integers by."""

Constant = int | float | bool


class Compilation(NamedTuple):
    """What a kernel is compiled for; it can be sent to another process."""

    kernel: str
    signature: Mapping[str, str]
    constants: Mapping[str, Constant]
    aligned: tuple[int, ...]
    warps: int
    stages: int
    chained: bool

    @property
    def key(self) -> tuple[object, ...]:
        """Equal for equal compilations."""
        return (
            self.kernel,
            *self.signature.items(),
            *self.constants.items(),
            self.aligned,
            self.warps,
            self.stages,
            self.chained,
        )

    def run(self, capability: int) -> Any:
        """Compile for GPUs of this compute capability (90: 9.0), or take it from Triton's cache on disk.

        A launch finds it there. Needs no GPU.
        """
        function: Any = getattr(kernels, self.kernel)
        names: list[str] = function.arg_names
        source = TRITON.compiler.ASTSource(
            fn=function,
            signature=dict(self.signature),
            constexprs={(names.index(name),): value for name, value in self.constants.items()},
            attrs={(index,): [["tt.divisibility", ALIGNMENT]] for index in self.aligned},
        )
        options = {"num_warps": self.warps, "num_stages": self.stages} | _chaining(self.chained)
        target = TRITON.backends.compiler.GPUTarget("cuda", capability, 32)
        return TRITON.compile(source, target=target, options=options)


@dataclass(frozen=True)
class Call:
    """A kernel with all that it is launched with.

    Attributes:
        arguments: by name; tensors stand for their addresses.
        constants: those that it is compiled for.
        chained: whether its blocks may start while the kernel before it in the stream still finishes; see
            `kernels._take_turns`.
    """

    kernel: Any
    grid: tuple[int, ...]
    arguments: Mapping[str, Tensor | int | float]
    constants: Mapping[str, Constant]
    warps: int
    stages: int = 3
    chained: bool = False

    def queue(self) -> Any:
        """Launch it on the current stream; returns the compiled kernel."""
        return self.kernel[self.grid](
            **self.arguments,
            **self.constants,
            num_warps=self.warps,
            num_stages=self.stages,
            **_chaining(self.chained),
        )

    def compilation(self) -> Compilation:
        """Return what its launch will compile."""
        signature: dict[str, str] = {}
        aligned: list[int] = []
        for parameter in self.kernel.params:
            value = self.arguments.get(parameter.name)
            if value is None:
                signature[parameter.name] = "constexpr"
            elif isinstance(value, Tensor):
                signature[parameter.name] = POINTERS[value.dtype]
                aligned += [parameter.num] if value.data_ptr() % ALIGNMENT == 0 else []
            else:
                signature[parameter.name] = "i32" if isinstance(value, int) else "fp32"
                if isinstance(value, int) and not parameter.do_not_specialize and value % ALIGNMENT == 0:
                    aligned.append(parameter.num)
        constants = {name: self.constants[name] for name, kind in signature.items() if kind == "constexpr"}
        return Compilation(
            self.kernel.__name__, signature, constants, tuple(aligned), self.warps, self.stages, self.chained
        )


def _chaining(chained: bool) -> dict[str, bool]:
    """Return the launch option, where it is wanted: Triton's interpreter does not know it."""
    return {"launch_pdl": True} if chained else {}


def share_l1(kernel: Any, percent: int) -> None:
    """Set which part of a multiprocessor's L1 memory a compiled kernel has as shared memory; more if it needs more.

    By default the driver chooses one for each kernel, and blocks of kernels with different ones cannot run beside each
    other. Source: cuFuncSetAttribute in NVIDIA's CUDA Driver API.
    """
    driver = ctypes.CDLL("libcuda.so.1")
    driver.cuFuncSetAttribute(ctypes.c_void_p(kernel.function), PREFERRED_SHARED_MEMORY_CARVEOUT, percent)


def compile_all(calls: Iterable[Call], capability: int, workers: Executor) -> list[Exception]:
    """Compile what these calls need, side by side; a launch then starts at once.

    Returns:
        what failed; the launch will say the same.
    """
    needed = {compilation.key: compilation for compilation in (call.compilation() for call in calls)}
    pending = [workers.submit(compile_one, compilation, capability) for compilation in needed.values()]
    return [error for future in pending if (error := future.exception()) is not None and isinstance(error, Exception)]


def compile_one(compilation: Compilation, capability: int) -> None:
    """Compile, and return nothing that would have to be sent back."""
    compilation.run(capability)
