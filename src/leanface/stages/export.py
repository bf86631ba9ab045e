"""Stage export: one variant as an ONNX file that computes what PyTorch computes."""

import tempfile
from dataclasses import asdict
from pathlib import Path

from leanface import bundle, catalog, paths
from leanface.config import Export, Samples, TaskChoice
from leanface.export.onnx import describe, export_network, save_model
from leanface.export.parity import AS_WRITTEN, as_written, check_parity, headline, parity_inputs
from leanface.networks.quantized import in_flavor
from leanface.runtime import open_all
from leanface.task import load_task


def run(*, variant: str, task: TaskChoice, export: Export, data: Samples) -> dict[str, float]:
    chosen = catalog.VARIANTS[variant]
    folder, flavor = chosen.bundle, chosen.flavor or "tensorrt"
    network, spec = bundle.load_bundle(folder)
    precision = variant.rpartition("_")[2]
    dynamic_size = export.dynamic_size and spec.input.any_size
    model = export_network(network, spec, precision, export.opset, dynamic_size=dynamic_size, flavor=flavor)
    description = {"variant": variant, "bundle_sha256": bundle.digest(folder), **describe(model)}

    loaded = load_task(task, data)
    images = loaded.split("val").head(export.parity_count).images
    inputs = parity_inputs(images, loaded.subject, dynamic_size=dynamic_size)
    with tempfile.TemporaryDirectory() as scratch:  # a file that fails is never seen among the models
        file = Path(scratch) / paths.onnx_path(variant).name
        save_model(model, file, description)
        with open_all(dict.fromkeys(catalog.readers_of("onnx"), file)) as (runtimes, not_run):
            runs = {AS_WRITTEN: as_written(model)} | {runtime.name: runtime.run for runtime in runtimes}
            meant = in_flavor(network, flavor) if precision == "int8" else network
            rows = check_parity(meant, runs, inputs, getattr(export, f"tolerance_{precision}"))
    parity = {"rows": [asdict(row) for row in rows], "not_run": not_run}
    save_model(model, paths.onnx_path(variant), description | {"parity": parity})
    return {"size_bytes": float(description["size_bytes"]), **headline(rows)}
