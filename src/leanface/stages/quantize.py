"""Stage quantize: the student in 8 bits: calibrated, maybe trained on with the distillation criterion, and rounded."""

import copy

from leanface import bundle, paths
from leanface.config import Distill, Machine, Quantize, Samples, TaskChoice
from leanface.distillation.distill import train_on
from leanface.files import write_json
from leanface.metrics.outputs import predict, reference_errors
from leanface.mixed_precision import MixedPrecision
from leanface.quantization.calibrate import calibrate, quantizer_of, round_calibrated
from leanface.task import load_task
from leanface.training.fit import MetricLog, Session


def run(
    *,
    task: TaskChoice,
    quantize: Quantize,
    distill: Distill,
    data: Samples,
    machine: Machine,
    seed: int,
    log: MetricLog,
    seconds: float | None = None,
) -> dict[str, float]:
    loaded = load_task(task, data)
    val = loaded.split("val")
    teacher, _ = bundle.load_network(paths.TEACHER)
    student, parent = bundle.load_network(paths.DISTILLED)
    outputs, predictions = predict(teacher, val), {"float": predict(student, val)}
    quantizer = quantizer_of(quantize, parent.widths)
    network = calibrate(student, quantize, quantizer, loaded.split("train"), parent.input.only_size)
    predictions["calibrated"] = predict(network, val)
    parents = {"parent": bundle.digest(paths.DISTILLED), "teacher": bundle.digest(paths.TEACHER)}
    metrics: dict[str, float] = {}
    if quantize.method == "qat":
        key = [quantize, parents]
        session = Session(machine, seed, paths.QUANTIZE_REPORT, log, paths.QUANTIZE_STATE, key, seconds)
        labeled = val.labeled(outputs)
        result = train_on(network, teacher, loaded, quantize.optimizer, distill, session, val=labeled)
        predictions["trained"] = predict(network, val)
        metrics = {"seconds": result.seconds, "images_per_second": result.images_per_second}
    before = copy.deepcopy(network.state_dict())
    if quantize.rounding != "nearest":
        round_calibrated(network, quantize, loaded.split("train"))
        predictions["rounded"] = predict(network, val)
    if quantize.budget is not None:
        mixed = MixedPrecision(loaded, network, before, quantizer, predictions["float"])
        network, quantizer = mixed.within(quantize.budget)
        predictions["mixed"] = predict(network, val)
    lineage = {"teacher_weights": bundle.weights_digest(paths.TEACHER), "license": parent.license}
    provenance = parents | {"quantize": quantize.model_dump(mode="json"), "seed": seed} | lineage
    fields = {"quantizer": quantizer.model_dump(mode="json"), "provenance": provenance}
    bundle.save_bundle(network, parent.model_copy(update=fields), paths.QUANTIZED)

    references = {"teacher": outputs, **val.truth()}
    metrics |= reference_errors(loaded, predictions, references)
    write_json(paths.QUANTIZE_REPORT / "metrics.json", metrics)
    return metrics
