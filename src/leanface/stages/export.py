"""Stage export: one variant as an ONNX file that computes what PyTorch computes."""

import dataclasses

from leanface import bundle, paths
from leanface.config import Export
from leanface.data.dataset import FaceDataset
from leanface.export.onnx import describe, export_network, save_model
from leanface.export.parity import check_parity


def run(*, variant: str, export: Export) -> dict[str, float]:
    folder = paths.BUNDLES[variant]
    network, spec = bundle.load_bundle(folder)
    # The quantised network may be one of another scheme than the variant's name says.
    precision = spec.scheme or variant.rpartition("_")[2]
    model = export_network(network, spec, precision, export.opset)
    images = FaceDataset(paths.FACES / "val").head(export.parity_count).images
    parity = check_parity(network, model, images, getattr(export, f"tolerance_{precision}"))
    description = {"variant": variant, "bundle_sha256": bundle.digest(folder), **describe(model)}
    save_model(model, paths.onnx_path(variant), description | {"parity": dataclasses.asdict(parity)})
    return {
        "size_bytes": float(description["size_bytes"]),
        "parity_relative_l2": parity.relative_l2,
        "parity_worst_relative_l2": parity.worst_relative_l2,
    }
