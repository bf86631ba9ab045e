"""Stage prune: channels go, and what is left is re-fitted in closed form."""

from leanface import bundle, paths
from leanface.config import Prune, Samples, TaskChoice
from leanface.files import write_json
from leanface.metrics.outputs import predict, reference_errors
from leanface.networks.widths import widths_of
from leanface.pruning.cost import layer_costs
from leanface.pruning.plan import read_architecture
from leanface.pruning.prune import prune as prune_network
from leanface.pruning.report import plot_widths, recovered, size_metrics, write_layers
from leanface.task import load_task


def run(*, task: TaskChoice, prune: Prune, data: Samples, seed: int) -> dict[str, float]:
    loaded = load_task(task, data)
    train, val = loaded.split("train"), loaded.split("val")
    teacher, parent = bundle.load_network(paths.TEACHER)
    images = train.head(prune.calibration_count).images
    pruned = prune_network(teacher, prune, images, loaded, seed, read_architecture(paths.ARCHITECTURE))
    parents = {"parent": bundle.digest(paths.TEACHER), "teacher_weights": bundle.weights_digest(paths.TEACHER)}
    provenance = parents | {"prune": prune.model_dump(), "seed": seed, "license": parent.license}
    spec = bundle.new_spec(
        pruned.network, parent.input.size, task.name, kept_channels=pruned.kept, provenance=provenance
    )
    bundle.save_bundle(pruned.network, spec, paths.PRUNED)

    references = {"teacher": predict(teacher, val), **val.truth()}
    predictions = {step: predict(state, val) for step, state in pruned.states.items()}
    metrics = reference_errors(loaded, predictions, references)
    original, smaller = (layer_costs(state, val.image_size) for state in (teacher, pruned.network))
    metrics |= size_metrics(teacher, pruned.network, val.image_size) | recovered(metrics, loaded.subject.teacher_error)
    write_layers(original, smaller, pruned.fits, paths.PRUNE_REPORT / "layers.csv")
    plot_widths(widths_of(teacher), spec.widths, paths.PRUNE_REPORT / "widths.png")
    write_json(paths.PRUNE_REPORT / "metrics.json", metrics)
    return metrics
