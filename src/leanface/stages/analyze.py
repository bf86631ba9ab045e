"""Stage analyze: what each layer of the original costs, and how much of the outputs each carries."""

from dataclasses import asdict

from leanface import bundle, paths
from leanface.config import Analyze, Samples, TaskChoice
from leanface.files import write_json
from leanface.pruning.cost import layer_costs, layer_latencies_ms, macs_and_parameters
from leanface.pruning.sensitivity import pruning_sensitivity
from leanface.quantization.sensitivity import quantization_sensitivity
from leanface.report.analysis import headline, save_layers, save_sensitivity
from leanface.task import load_task

WARMUP, RUNS = 3, 15


def run(*, task: TaskChoice, analyze: Analyze, data: Samples) -> dict[str, float]:
    network, _ = bundle.load_network(paths.TEACHER)
    costs = layer_costs(network, data.image_size)
    latencies_ms, whole_ms = layer_latencies_ms(network, data.image_size, warmup=WARMUP, runs=RUNS)
    layers = {
        name: {**cost._asdict(), "latency_ms": latency_ms, "latency_share": latency_ms / whole_ms}
        for (name, cost), latency_ms in zip(costs.items(), latencies_ms.values(), strict=True)
    }
    write_json(paths.LAYERS, layers)
    loaded = load_task(task, data)
    save_layers(layers, loaded.naming, paths.LAYERS_PICTURE)

    images = loaded.split("train").head(analyze.face_count).images
    groups = pruning_sensitivity(network, images, loaded, analyze.ratios)
    quantized = quantization_sensitivity(network, images, loaded)
    sensitivity = {
        "image_size": data.image_size,
        "faces": len(images),
        "groups": {name: asdict(group) for name, group in groups.items()},
        "quantize": quantized,
    }
    write_json(paths.SENSITIVITY, sensitivity)
    save_sensitivity(sensitivity, loaded.naming, loaded.subject.damages, paths.SENSITIVITY_PICTURE)

    macs, parameters = macs_and_parameters(network, data.image_size)
    metrics = {"macs": float(macs), "parameters": float(parameters), "latency_ms": whole_ms} | headline(
        sensitivity, loaded.subject.damages
    )
    write_json(paths.ANALYZE_METRICS, metrics)
    return metrics
