"""Stage quantize: the student in 8 bits, first calibrated, then trained on with the distillation criterion."""

from leanface import bundle, paths
from leanface.config import Distill, Machine, Quantize
from leanface.data.datamodule import FaceDataModule
from leanface.data.dataset import FaceDataset
from leanface.distillation.criterion import DistillationCriterion
from leanface.face.morphable_model import load_morphable_model
from leanface.metrics.geometry import predict, reference_errors
from leanface.networks.quantized import Quantizer
from leanface.networks.sparsity import keep_zeros
from leanface.quantization.fake_quantize import fake_quantize
from leanface.quantization.keep import layers_to_keep
from leanface.report.files import write_json
from leanface.training.fit import MetricLog, fit

POINTS = 4
"""Validations of a training so short that each costs as much as several of its steps."""


def run(
    *, quantize: Quantize, distill: Distill, machine: Machine, seed: int, log: MetricLog, seconds: float | None = None
) -> dict[str, float]:
    model, val = load_morphable_model(paths.MORPHABLE_MODEL), FaceDataset(paths.FACES / "val")
    teacher, _ = bundle.load_network(paths.TEACHER)
    student, parent = bundle.load_network(paths.DISTILLED)
    answers, predictions = predict(teacher, val), {"float": predict(student, val)}
    kept = layers_to_keep(quantize.keep_fp16, parent.widths, paths.SENSITIVITY)
    quantizer = Quantizer(scheme=quantize.scheme, residual=quantize.quantize_residual, kept=kept)
    images = FaceDataset(paths.FACES / "train").head(quantize.calibration_count).images
    network = fake_quantize(student, images, quantizer, quantize.calibration)
    predictions["calibrated"] = predict(network, val)
    parents = {"parent": bundle.digest(paths.DISTILLED), "teacher": bundle.digest(paths.TEACHER)}
    metrics: dict[str, float] = {}
    if parent.sparsity is not None:
        keep_zeros(network)
    if quantize.method == "qat":
        result = fit(
            network,
            DistillationCriterion(teacher, model, distill, parent.kept),
            FaceDataModule(paths.FACES, quantize.optimizer.batch_size, seed, val=val.labelled(answers)),
            quantize.optimizer,
            # A training of a minute or two, which compiling would not pay for.
            machine.model_copy(update={"compile": False}),
            model=model,
            seed=seed,
            report=paths.QUANTIZE_REPORT,
            freeze_batch_norm=True,
            log=log,
            checkpoint=paths.QUANTIZE_STATE,
            purpose=[quantize, distill, parents],
            points=POINTS,
            piece_seconds=seconds,
        )
        predictions["trained"] = predict(network, val)
        metrics = {"seconds": result.seconds, "images_per_second": result.images_per_second}
    provenance = parents | {"quantize": quantize.model_dump(mode="json"), "seed": seed}
    fields = {"quantizer": quantizer.model_dump(mode="json"), "provenance": provenance}
    bundle.save_bundle(network, parent.model_copy(update=fields), paths.QUANTIZED)

    references = {"teacher": answers, **val.truth()}
    metrics |= reference_errors(model, predictions, references)
    write_json(paths.QUANTIZE_REPORT / "metrics.json", metrics)
    return metrics
