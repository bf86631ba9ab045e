"""The end-to-end measurement measures every step."""

import logging
from typing import Any

import pytest
from rich.console import Console

from leanface.catalog import MEASURES
from leanface.config import Benchmark
from leanface.reconstruction.bench import (
    JOURNEY,
    NETWORK,
    ORIGINALS,
    REST,
    RUNS_MIN,
    bench_end_to_end,
    print_steps,
    ratio,
)


def test_every_step_is_measured_and_shown(exported: Any) -> None:
    settings = Benchmark(
        batches=(1,), streams=(1,), threads=1, warmup=1, window=2, windows_max=6, interval=0.05, energy_seconds=1.0
    )
    steps = bench_end_to_end(exported.fp32, settings, seconds=10.0)
    assert all(step.timing.latency_ms > 0 for step in steps)
    times = {step.name: step.timing.latency_ms for step in steps}
    assert ratio(steps) == times[REST] / times[NETWORK]
    console = Console(record=True, width=200, file=None, quiet=False)
    with console.capture() as text:
        print_steps(steps, console)
    assert all(step.name in text.get() for step in steps)
    assert f"{ratio(steps):.2f} times the network's own time" in text.get()
    assert all(step.timing.speedup is None for step in steps)


def test_the_whole_journey_is_compared_with_the_original_s(exported: Any) -> None:
    settings = Benchmark(
        batches=(1,), streams=(1,), threads=1, warmup=1, window=2, windows_max=6, interval=1.0, energy_seconds=1.0
    )
    steps = bench_end_to_end(exported.fp32, settings, seconds=20.0, original=exported.float_bundle)
    ours, original = steps[-2:]
    assert (ours.name, original.name) == (JOURNEY, ORIGINALS)
    assert ours.timing.speedup is not None
    assert original.timing.speedup is not None
    assert original.timing.speedup.value == 1.0
    console = Console(width=200)
    with console.capture() as text:
        print_steps(steps, console)
    assert f"{JOURNEY}: {MEASURES['speedup'].text(ours.timing.speedup.value)} as fast as {ORIGINALS}" in text.get()


def test_without_time_every_step_still_runs_and_says_how_often(exported: Any, caplog: pytest.LogCaptureFixture) -> None:
    settings = Benchmark(
        batches=(1,), streams=(1,), threads=1, warmup=9, window=9, windows_max=9, interval=0.05, energy_seconds=1.0
    )
    with caplog.at_level(logging.INFO):
        steps = bench_end_to_end(exported.fp32, settings, seconds=0.0)
    assert "measuring 18 steps" in caplog.text
    assert {(step.timing.windows, step.timing.runs, step.timing.latency.low) for step in steps} == {(1, RUNS_MIN, None)}
    console = Console(width=200)
    with console.capture() as text:
        print_steps(steps, console)
    rows = [line.split() for line in text.get().splitlines() if "preview" in line]
    assert rows[0][-1] == str(RUNS_MIN)
    assert "times that vary too much" in text.get()
