"""Stage benchmark: latency, throughput, memory, energy and size of every network in every runtime on this machine."""

from leanface import paths
from leanface.config import Benchmark, Data
from leanface.face.morphable_model import load_morphable_model
from leanface.files import read_json, write_json
from leanface.metrics.counters import clocks_mhz
from leanface.photos.load import load_photo
from leanface.runtime.benchmark import as_json, benchmark_end_to_end, benchmark_networks, headline, plan


def run(*, benchmark: Benchmark, data: Data, seconds: float | None = None) -> dict[str, float]:
    if seconds is not None:
        benchmark = benchmark.model_copy(update={"seconds": min(seconds, benchmark.seconds or seconds)})
    clocks = [clocks_mhz()]
    rows = benchmark_networks(plan(benchmark), benchmark, data.image_size)
    clocks.append(clocks_mhz())
    photo = load_photo(data.photos[0])
    end_to_end = benchmark_end_to_end(benchmark, data.image_size, load_morphable_model(paths.MORPHABLE_MODEL), photo)
    contents = {
        "device": read_json(paths.DEVICE),
        "settings": {"image_size": data.image_size, **benchmark.model_dump(mode="json")},
        "clocks_mhz": dict(zip(("before", "after"), clocks, strict=True)),
        "files": {name: paths.onnx_path(name).stat().st_size for name in paths.VARIANTS},
        "rows": as_json(rows),
        "end_to_end": as_json(end_to_end),
    }
    write_json(paths.BENCHMARK, contents)
    return headline(rows)
