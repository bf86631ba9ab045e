"""Stage prune: channels go, and what is left is re-fitted in closed form."""

import json

from leanface import bundle, paths
from leanface.config import Prune
from leanface.data.dataset import FaceDataset
from leanface.face.morphable_model import load_morphable_model
from leanface.metrics.geometry import predict, reference_errors
from leanface.networks.resnet import widths_of
from leanface.pruning.compensate import LayerFit, compensate
from leanface.pruning.cost import layer_costs, macs_and_parameters
from leanface.pruning.prune import prune as prune_channels
from leanface.pruning.report import plot_widths, write_layers


def run(*, prune: Prune, seed: int) -> dict[str, float]:
    train, val = (FaceDataset(paths.FACES / split) for split in ("train", "val"))
    teacher, parent = bundle.load_network(paths.TEACHER)
    network, kept = prune_channels(teacher, prune, seed)
    networks, fits = {"pruned": network}, list[LayerFit]()
    if prune.compensate:
        images = train.head(prune.calibration_count).images
        network, fits = compensate(network, teacher, kept, images, prune.ridge)
        networks["compensated"] = network
    provenance = {"parent": bundle.digest(paths.TEACHER), "prune": prune.model_dump(), "seed": seed}
    spec = bundle.new_spec(network, parent.input.size, kept=kept, provenance=provenance)
    bundle.save_bundle(network, spec, paths.PRUNED)

    model = load_morphable_model(paths.MORPHABLE_MODEL)
    references = {"teacher": predict(teacher, val), **val.truth()}
    predictions = {step: predict(state, val) for step, state in networks.items()}
    metrics = reference_errors(model, predictions, references)
    for step, state in {"original": teacher, "pruned": network}.items():
        metrics[f"{step}/macs"], metrics[f"{step}/parameters"] = macs_and_parameters(state, val.image_size)
    original, pruned = (layer_costs(state, val.image_size) for state in (teacher, network))
    write_layers(original, pruned, fits, paths.PRUNE_REPORT / "layers.csv")
    plot_widths(widths_of(teacher), spec.widths, paths.PRUNE_REPORT / "widths.png")
    (paths.PRUNE_REPORT / "metrics.json").write_text(json.dumps(metrics, indent=1) + "\n")
    return metrics
