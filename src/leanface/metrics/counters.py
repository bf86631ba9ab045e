"""What the machine itself counts: energy, a GPU's memory, clocks. Most containers hide some of it."""

import contextlib
import math
import time
from collections.abc import Callable, Generator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import psutil
import pynvml

from leanface.errors import BackendError

POWERCAP = Path("/sys/class/powercap")


@dataclass(frozen=True)
class EnergyCounter:
    """One part of the machine whose energy is counted.

    Attributes:
        source: "nvml" for a GPU, "rapl" for a processor package; only energies of the same source compare.
        read_j: joules since some moment in the past.
        range_j: after so many joules it begins at 0 again.
    """

    source: str
    read_j: Callable[[], float]
    range_j: float


def energy_counters(*, gpu: bool) -> list[EnergyCounter]:
    """Return counters of the first GPU (NVML), or of all processor packages (RAPL).

    Raises:
        BackendError: nothing is counted here, or it is not told to this user.
    """
    return _nvml_counters() if gpu else rapl_counters(POWERCAP)


def rapl_counters(folder: Path) -> list[EnergyCounter]:
    """Return a powercap folder's counters of processor packages. Source: the kernel's Documentation/power/powercap.

    Raises:
        BackendError: there are none, or they may not be read.
    """
    packages = [zone for zone in sorted(folder.glob("intel-rapl:*")) if _name(zone).startswith("package")]
    if not packages:
        raise BackendError(f"the kernel shows no energy counter of the processor (RAPL) in {folder}.")
    try:
        counters = [_rapl_counter(zone) for zone in packages]
        for counter in counters:
            counter.read_j()
    except PermissionError as error:
        raise BackendError(
            f"{error.filename} may not be read by this user; `sudo chmod a+r {folder}/intel-rapl:*/energy_uj` "
            "allows it until the next start."
        ) from None
    return counters


def energy_per_call_j(counters: list[EnergyCounter], call: Callable[[], object], seconds: float) -> float:
    """Count the energy (J) of a call on these counters, by repeating it; what idles meanwhile counts too."""
    before = [counter.read_j() for counter in counters]
    calls, end = 0, time.perf_counter() + seconds
    while calls == 0 or time.perf_counter() < end:
        call()
        calls += 1
    spent = [(counter.read_j() - start) % counter.range_j for counter, start in zip(counters, before, strict=True)]
    return sum(spent) / calls


def gpu_memory_bytes() -> int | None:
    """Return how much of the first GPU's memory is in use, by whatever process; None without one."""
    with contextlib.suppress(pynvml.NVMLError), _first_gpu() as handle:
        return int(pynvml.nvmlDeviceGetMemoryInfo(handle).used)
    return None


def clocks_mhz() -> dict[str, float | None]:
    """Return the present clock of the processor (mean of its cores) and of the first GPU; None where it is hidden."""
    frequency = psutil.cpu_freq() if hasattr(psutil, "cpu_freq") else None
    clocks: dict[str, float | None] = {"cpu": frequency.current if frequency else None, "gpu": None}
    with contextlib.suppress(pynvml.NVMLError), _first_gpu() as handle:
        clocks["gpu"] = float(pynvml.nvmlDeviceGetClockInfo(handle, pynvml.NVML_CLOCK_SM))
    return clocks


@contextlib.contextmanager
def _first_gpu() -> Generator[Any]:
    pynvml.nvmlInit()
    try:
        yield pynvml.nvmlDeviceGetHandleByIndex(0)
    finally:
        pynvml.nvmlShutdown()


def _nvml_counters() -> list[EnergyCounter]:
    def read_j() -> float:
        with _first_gpu() as handle:
            return pynvml.nvmlDeviceGetTotalEnergyConsumption(handle) / 1e3

    try:
        read_j()
    except pynvml.NVMLError as error:
        raise BackendError(f"NVML counts no energy of a GPU here: {error}.") from None
    return [EnergyCounter("nvml", read_j, math.inf)]


def _rapl_counter(zone: Path) -> EnergyCounter:
    range_j = int((zone / "max_energy_range_uj").read_text()) / 1e6
    return EnergyCounter("rapl", lambda: int((zone / "energy_uj").read_text()) / 1e6, range_j)


def _name(zone: Path) -> str:
    file = zone / "name"
    return file.read_text().strip() if file.is_file() else ""
