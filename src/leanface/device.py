"""Describes this machine, and says how many of its cores this process may use."""

import ctypes
import functools
import math
import os
import platform
from itertools import takewhile
from pathlib import Path
from typing import Any

from leanface.extras import installed_version

RUNTIMES = (
    "torch",
    "onnxruntime",
    "onnxruntime-gpu",
    "openvino",
    "tensorrt",
    "tensorrt-rtx-cu13-bindings",
    "cuda-bindings",
)
"""Distributions whose version decides what an engine or a latency is."""

THREAD_VARIABLES = ("OMP_NUM_THREADS", "MKL_NUM_THREADS", "OPENBLAS_NUM_THREADS", "NUMBA_NUM_THREADS")
"""Environment variables that the numerical libraries read when they are first loaded."""


def usable_cores() -> int:
    """Count the cores that this process may use, at least 1: its affinity, and its CPU quota rounded up."""
    quota = _own_quota()
    return _visible_cores() if quota is None else max(1, min(_visible_cores(), math.ceil(quota)))


def quota_binds() -> bool:
    """Tell whether a CPU quota allows fewer cores than libraries see by themselves, which respect affinity only."""
    return usable_cores() < _visible_cores()


def limit_threads() -> None:
    """Keep numerical libraries that are not loaded yet within the CPU quota; the user's own variables stay."""
    if quota_binds():
        for name in THREAD_VARIABLES:
            os.environ.setdefault(name, str(usable_cores()))


def _visible_cores() -> int:
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


@functools.cache
def _own_quota() -> float | None:
    """Read this process's quota once: it takes as long as a small network."""
    return _cpu_quota(Path("/proc/self"))


def _cpu_quota(process: Path) -> float | None:
    """Read how many cores' time the control groups of a process allow; None without a limit.

    A parent's limit binds too. Where a container hides the groups above its own, /proc names a folder that is not
    there: then the mount itself is the container's group.

    Args:
        process: its folder in /proc.

    Source: cgroups(7); Documentation/admin-guide/cgroup-v2.rst and scheduler/sched-bwc.rst of Linux.
    """
    try:
        groups = [line.split(":", 2) for line in (process / "cgroup").read_text().splitlines()]
        mounts = [line.split(" - ", 1) for line in (process / "mountinfo").read_text().splitlines()]
    except OSError:
        return None  # not Linux
    limits: list[float] = []
    for mount, filesystem in mounts:
        kind, _, options = filesystem.split(" ", 2)
        if kind != "cgroup2" and not (kind == "cgroup" and "cpu" in options.split(",")):
            continue
        controllers = "" if kind == "cgroup2" else "cpu"
        own = [Path(path) for _, names, path in groups if controllers in names.split(",")]
        top, point = (Path(part) for part in mount.split()[3:5])
        folder = point / own[0].relative_to(top) if own and own[0].is_relative_to(top) else point
        for group in (folder, *folder.parents):
            limits += _limit(group)
            if group == point:
                break
    return min(limits, default=None)


def _limit(group: Path) -> list[float]:
    """Read one group's limit in cores, if it has one."""
    try:
        if (group / "cpu.max").is_file():
            quota, period = (group / "cpu.max").read_text().split()
        else:
            quota, period = ((group / f"cpu.cfs_{name}_us").read_text() for name in ("quota", "period"))
        return [int(quota) / int(period)] if quota != "max" and int(quota) > 0 else []
    except (OSError, ValueError):
        return []  # the group at the top has no such file


def describe_device() -> dict[str, Any]:
    """Describe the processor, memory, NVIDIA GPUs and runtimes; the same at every call. Imports no runtime."""
    import psutil

    return {
        "system": platform.system(),
        "architecture": platform.machine(),
        "python": platform.python_version(),
        "cpu": _cpu_model(),
        "cores": usable_cores(),
        "memory_gib": round(psutil.virtual_memory().total / 2**30),
        "gpus": _gpus(),
        "runtimes": {name: installed_version(name) for name in RUNTIMES},
    }


def has_nvidia_driver() -> bool:
    """Tell whether a driver for NVIDIA GPUs is installed; takes no time where there is none, and imports no runtime."""
    try:
        ctypes.CDLL("nvcuda.dll" if platform.system() == "Windows" else "libcuda.so.1")
    except OSError:
        return False
    return True


ISAS_WITHOUT_VNNI = ("SSE41", "AVX", "AVX2", "AVX512_CORE")
"""Of oneDNN's instruction sets."""


def has_vnni() -> bool:
    """Tell whether the processor is an x86 one that multiplies unsigned by signed bytes without saturating.

    Only Linux tells; elsewhere, and on other processors, the answer is no. So it is where oneDNN, which OpenVINO
    computes with, may not use those instructions (its environment variable ONEDNN_MAX_CPU_ISA).
    """
    if os.environ.get("ONEDNN_MAX_CPU_ISA", "").upper() in ISAS_WITHOUT_VNNI:
        return False
    try:
        lines = Path("/proc/cpuinfo").read_text().splitlines()
    except OSError:
        return False
    flags = next((line.split() for line in lines if line.startswith("flags")), list[str]())
    return not {"avx512_vnni", "avx_vnni"}.isdisjoint(flags)


def _cpu_model() -> str:
    cpuinfo = Path("/proc/cpuinfo")  # Linux, where platform.processor() is empty or vague
    lines = cpuinfo.read_text().splitlines() if cpuinfo.is_file() else []
    names = [line.partition(":")[2].strip() for line in lines if line.startswith("model name")]
    return names[0] if names else platform.processor()


VISIBLE = "CUDA_VISIBLE_DEVICES"
"""Environment variable of the GPUs that a process may use, and their order; read when CUDA starts in it."""


def visible_gpus() -> list[str]:
    """List the GPUs that this process may use, as `VISIBLE` names them; imports no runtime and starts no CUDA.

    As CUDA does, it reads up to the first name that is no GPU's, such as -1: what follows is not used.
    """
    import pynvml

    try:
        pynvml.nvmlInit()
    except pynvml.NVMLError:
        return []  # no NVIDIA driver
    if VISIBLE in os.environ:
        names = (name.strip() for name in os.environ[VISIBLE].split(","))
        return list(takewhile(lambda name: name.isdecimal() or name.startswith(("GPU-", "MIG-")), names))
    handles = [pynvml.nvmlDeviceGetHandleByIndex(index) for index in range(pynvml.nvmlDeviceGetCount())]
    return [pynvml.nvmlDeviceGetUUID(handle) for handle in handles]  # numbers mean another order to CUDA


def _gpus() -> list[dict[str, str]]:
    import pynvml

    try:
        pynvml.nvmlInit()
    except pynvml.NVMLError:
        return []  # no NVIDIA driver
    driver = pynvml.nvmlSystemGetDriverVersion()
    gpus: list[dict[str, str]] = []
    for index in range(pynvml.nvmlDeviceGetCount()):
        handle = pynvml.nvmlDeviceGetHandleByIndex(index)
        major, minor = pynvml.nvmlDeviceGetCudaComputeCapability(handle)
        gpus.append({"name": pynvml.nvmlDeviceGetName(handle), "compute": f"{major}.{minor}", "driver": driver})
    pynvml.nvmlShutdown()
    return gpus
