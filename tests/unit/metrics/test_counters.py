"""Energy counters, on a powercap folder as Linux lays it out."""

import math
from pathlib import Path

import pytest

from leanface.errors import BackendError
from leanface.metrics.counters import (
    EnergyCounter,
    clocks_mhz,
    energy_counters,
    energy_per_call_j,
    gpu_memory_bytes,
    rapl_counters,
)


def write_zone(folder: Path, zone: str, name: str, energy_uj: int, range_uj: int = 262_143_328_850) -> Path:
    path = folder / zone
    path.mkdir()
    for file, value in (("name", name), ("energy_uj", energy_uj), ("max_energy_range_uj", range_uj)):
        (path / file).write_text(f"{value}\n")
    return path / "energy_uj"


def test_packages_are_counted_and_what_lies_inside_them_is_not_counted_twice(tmp_path):
    write_zone(tmp_path, "intel-rapl:0", "package-0", 5_000_000)
    write_zone(tmp_path, "intel-rapl:0:0", "core", 3_000_000)
    write_zone(tmp_path, "intel-rapl:1", "package-1", 7_000_000)
    write_zone(tmp_path, "intel-rapl:2", "psys", 20_000_000)
    assert [counter.read_j() for counter in rapl_counters(tmp_path)] == [5.0, 7.0]


def test_the_energy_of_a_call_is_what_all_counters_gained_over_the_calls(tmp_path):
    files = [write_zone(tmp_path, f"intel-rapl:{index}", f"package-{index}", 1_000_000) for index in range(2)]
    calls = 0

    def call() -> None:
        nonlocal calls
        calls += 1
        for file in files:
            file.write_text(str(int(file.read_text()) + 250_000))

    assert energy_per_call_j(rapl_counters(tmp_path), call, 0.01) == pytest.approx(0.5)
    assert calls >= 1


def test_a_counter_that_begins_again_loses_nothing(tmp_path):
    file = write_zone(tmp_path, "intel-rapl:0", "package-0", 9_900_000, range_uj=10_000_000)
    assert energy_per_call_j(rapl_counters(tmp_path), lambda: file.write_text("300000"), 0.0) == pytest.approx(0.4)


def test_a_counter_without_an_end_is_simply_subtracted():
    readings = iter((5.0, 8.0))
    counters = [EnergyCounter("nvml", lambda: next(readings), math.inf)]
    assert energy_per_call_j(counters, lambda: None, 0.0) == 3.0


def test_a_machine_without_counters_says_so(tmp_path):
    with pytest.raises(BackendError, match="RAPL"):
        rapl_counters(tmp_path)


def test_counters_that_may_not_be_read_say_how_to_allow_it(tmp_path, monkeypatch):
    write_zone(tmp_path, "intel-rapl:0", "package-0", 1)
    read = Path.read_text

    def refuse(path: Path) -> str:  # root may read everything
        if path.name == "energy_uj":
            raise PermissionError(13, "Permission denied", str(path))
        return read(path)

    monkeypatch.setattr(Path, "read_text", refuse)
    with pytest.raises(BackendError, match=r"energy_uj may not be read.*chmod a\+r"):
        rapl_counters(tmp_path)


@pytest.mark.parametrize("gpu", [False, True])
def test_this_machine_counts_or_gives_its_reason(gpu):
    try:
        counters = energy_counters(gpu=gpu)
    except BackendError as error:
        counters, reason = [], str(error)
    else:
        reason = None
    assert all(counter.read_j() >= 0 for counter in counters)
    assert {counter.source for counter in counters} <= {"nvml" if gpu else "rapl"}
    assert bool(counters) == (reason is None)


def test_clocks_and_memory_are_numbers_or_unknown():
    clocks = clocks_mhz()
    assert set(clocks) == {"cpu", "gpu"}
    assert all(value is None or value > 0 for value in clocks.values())
    assert (gpu_memory_bytes() is None) == (clocks["gpu"] is None)
