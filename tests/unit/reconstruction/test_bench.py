"""The end-to-end measurement measures every step."""

from typing import Any

from rich.console import Console

from leanface.config import Benchmark
from leanface.reconstruction.bench import NETWORK, REST, bench_end_to_end, print_steps, ratio


def test_every_step_is_measured_and_shown(exported: Any) -> None:
    settings = Benchmark(
        batches=(1,), streams=(1,), threads=1, warmup=1, window=2, windows_max=1, stability=0.05, energy_seconds=1.0
    )
    steps = bench_end_to_end(exported.fp32, settings)
    assert all(step.timing.p50_ms > 0 for step in steps)
    times = {step.name: step.timing.p50_ms for step in steps}
    assert ratio(steps) == times[REST] / times[NETWORK]
    console = Console(record=True, width=200, file=None, quiet=False)
    with console.capture() as text:
        print_steps(steps, console)
    assert all(step.name in text.get() for step in steps)
    assert f"{ratio(steps):.2f} times the network's own time" in text.get()
