"""Stage quantize: the student in INT8, first calibrated, then trained on with the distillation criterion."""

import json

from leanface import bundle, paths
from leanface.config import Distill, Machine, Quantize
from leanface.data.datamodule import FaceDataModule
from leanface.data.dataset import FaceDataset
from leanface.distillation.criterion import DistillationCriterion
from leanface.face.morphable_model import load_morphable_model
from leanface.metrics.geometry import predict, reference_errors
from leanface.networks.quantized import Quantizer
from leanface.quantization.fake_quantize import fake_quantize
from leanface.training.fit import MetricLog, fit


def run(*, quantize: Quantize, distill: Distill, machine: Machine, seed: int, log: MetricLog) -> dict[str, float]:
    model, val = load_morphable_model(paths.MORPHABLE_MODEL), FaceDataset(paths.FACES / "val")
    teacher, _ = bundle.load_network(paths.TEACHER)
    student, parent = bundle.load_network(paths.DISTILLED)
    answers, predictions = predict(teacher, val), {"float": predict(student, val)}
    quantizer = Quantizer(residual=quantize.quantize_residual)
    images = FaceDataset(paths.FACES / "train").head(quantize.calibration_count).images
    network = fake_quantize(student, images, quantizer)
    predictions["calibrated"] = predict(network, val)
    parents = {"parent": bundle.digest(paths.DISTILLED), "teacher": bundle.digest(paths.TEACHER)}
    result = fit(
        network,
        DistillationCriterion(teacher, model, distill, parent.kept),
        FaceDataModule(paths.FACES, quantize.optimizer.batch_size, seed, val=val.labelled(answers)),
        quantize.optimizer,
        machine,
        model=model,
        seed=seed,
        report=paths.QUANTIZE_REPORT,
        freeze_batch_norm=True,
        log=log,
        checkpoint=paths.QUANTIZE_STATE,
        purpose=[quantize, distill, parents],
    )
    predictions["trained"] = predict(network, val)
    fields = {"quantizer": quantizer.model_dump(), "provenance": parent.provenance | parents | {"seed": seed}}
    bundle.save_bundle(network, parent.model_copy(update=fields), paths.QUANTIZED)

    references = {"teacher": answers, **val.truth()}
    metrics = reference_errors(model, predictions, references)
    metrics |= {"seconds": result.seconds, "images_per_second": result.images_per_second}
    (paths.QUANTIZE_REPORT / "metrics.json").write_text(json.dumps(metrics, indent=1) + "\n")
    return metrics
