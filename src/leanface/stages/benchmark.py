"""Stage benchmark: latency, throughput, memory, energy and size of every network in every runtime on this machine."""

from leanface import catalog, paths
from leanface.config import Benchmark, Samples, TaskChoice
from leanface.files import atomic_write, read_json
from leanface.metrics.counters import clocks_mhz
from leanface.metrics.measurements import BenchmarkRecord
from leanface.runtime.benchmark import baseline_runtime, benchmark_end_to_end, benchmark_networks, headline, plan
from leanface.task import journey_of


def run(*, task: TaskChoice, benchmark: Benchmark, data: Samples, seconds: float | None = None) -> dict[str, float]:
    if seconds is not None:
        benchmark = benchmark.model_copy(update={"seconds": min(seconds, benchmark.seconds or seconds)})
    before = clocks_mhz()
    rows = benchmark_networks(plan(benchmark), benchmark, data.image_size)
    after = clocks_mhz()
    journey = journey_of(task)(benchmark, data)
    end_to_end = [] if journey is None else benchmark_end_to_end(benchmark, journey.whole, journey.before)
    record = BenchmarkRecord(
        device=read_json(paths.DEVICE),
        image_size=data.image_size,
        settings=benchmark,
        clocks_mhz={"before": before, "after": after},
        baseline_runtime=baseline_runtime(rows),
        files={name: paths.onnx_path(name).stat().st_size for name in catalog.EVALUATED},
        rows=tuple(rows),
        end_to_end=tuple(end_to_end),
    )
    atomic_write(paths.BENCHMARK, record.model_dump_json(indent=1) + "\n")
    return headline(rows)
