"""What this machine is: recorded beside every measurement and engine, which hold for it alone."""

import os
import platform
from importlib import metadata
from pathlib import Path
from typing import Any

import psutil
import pynvml

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


def describe_device() -> dict[str, Any]:
    """Processor, memory, NVIDIA GPUs and runtimes; the same at every call. Imports no runtime."""
    return {
        "system": platform.system(),
        "architecture": platform.machine(),
        "python": platform.python_version(),
        "cpu": _cpu_model(),
        "cores": len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count(),
        "memory_gib": round(psutil.virtual_memory().total / 2**30),
        "gpus": _gpus(),
        "runtimes": {name: _version(name) for name in RUNTIMES},
    }


def _cpu_model() -> str:
    cpuinfo = Path("/proc/cpuinfo")  # Linux, where platform.processor() is empty or vague
    lines = cpuinfo.read_text().splitlines() if cpuinfo.is_file() else []
    names = [line.partition(":")[2].strip() for line in lines if line.startswith("model name")]
    return names[0] if names else platform.processor()


def _gpus() -> list[dict[str, str]]:
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


def _version(distribution: str) -> str | None:
    try:
        return metadata.version(distribution)
    except metadata.PackageNotFoundError:
        return None
