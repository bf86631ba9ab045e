"""Stage analyze: where the original spends its parameters, computation, memory and time."""

import json

from leanface import bundle, paths
from leanface.config import Data
from leanface.pruning.cost import layer_costs, layer_latencies_ms, macs_and_parameters
from leanface.pruning.report import plot_layers

WARMUP, RUNS = 3, 15


def run(*, data: Data) -> dict[str, float]:
    network, _ = bundle.load_network(paths.TEACHER)
    costs = layer_costs(network, data.image_size)
    latencies_ms, whole_ms = layer_latencies_ms(network, data.image_size, warmup=WARMUP, runs=RUNS)
    macs, parameters = macs_and_parameters(network, data.image_size)
    layers = {
        name: {**cost._asdict(), "latency_ms": latency_ms, "latency_share": latency_ms / whole_ms}
        for (name, cost), latency_ms in zip(costs.items(), latencies_ms.values(), strict=True)
    }
    metrics = {"macs": float(macs), "parameters": float(parameters), "latency_ms": whole_ms}
    report = metrics | {"image_size": data.image_size, "layers": layers}
    plot_layers(costs, latencies_ms, paths.ANALYZE_REPORT / "layers.png")
    (paths.ANALYZE_REPORT / "metrics.json").write_text(json.dumps(report, indent=1) + "\n")
    return metrics
