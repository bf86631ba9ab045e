"""`leanface ablate distill`: every variant from the same data and number of steps, measured on the val split."""

import logging
from pathlib import Path
from typing import Any

from torch import Tensor

from leanface import bundle, paths, tracking
from leanface.ablation.start import starting_network
from leanface.ablation.table import save_table
from leanface.ablation.variants import read_variants
from leanface.config import Config, load_config
from leanface.data.dataset import FaceDataset
from leanface.distillation.distill import distill
from leanface.errors import ConfigError
from leanface.face.morphable_model import MorphableModel, load_morphable_model
from leanface.face.render import Renderer
from leanface.face.texture import UvMap
from leanface.metrics.estimate import means
from leanface.metrics.fidelity import render_likeness, uv_likeness
from leanface.metrics.geometry import predict, reference_errors
from leanface.report.files import read_json, write_json
from leanface.training.checkpoint import fingerprint
from leanface.training.fit import resolve_device

logger = logging.getLogger(__name__)

RESULT = "result.json"
RENDERED = 256
"""Faces of the val split that are rendered for comparison."""


def ablate(table: Path, folder: Path, steps: int | None = None) -> None:
    """Train and measure every variant that was not done yet; the table and its picture grow as they are done.

    Nothing else is needed than reports/config.yaml, the original's and the pruned bundle, and the prepared faces (of
    those, streamed distillation needs the val split alone).

    Args:
        table: YAML, see conf/ablation/distill.yaml.
        folder: where results go; a finished variant whose conditions are the same is not run again.
        steps: in place of the configuration's.

    Raises:
        ConfigError: the table is not valid, or the pruned network has no record.
    """
    config = load_config(paths.CONFIG)
    base = config.distill
    if steps is not None:
        base = base.model_copy(update={"optimizer": base.optimizer.model_copy(update={"steps": steps})})
    variants = read_variants(table, base, config.seed)
    model, val = load_morphable_model(paths.MORPHABLE_MODEL), FaceDataset(paths.FACES / "val")
    original, _ = bundle.load_network(paths.TEACHER)
    pruned, spec = bundle.load_network(paths.PRUNED)
    if spec.kept is None:
        raise ConfigError(f"{paths.PRUNED} has no pruning record; set prune.ratio above 0 and run stage prune.")
    answers = predict(original.to(resolve_device(config.machine)), val)
    original.to("cpu")
    parents = {"parent": bundle.digest(paths.PRUNED), "teacher": bundle.digest(paths.TEACHER)}

    for name, variant in variants.items():
        report = folder / name
        mark = fingerprint(pruned, [variant, config.data, parents])
        if not _is_done(report / RESULT, mark):
            logger.info("%s: from %s, %d steps", name, variant.start, variant.distill.optimizer.steps)
            student = starting_network(variant.start, original, pruned, spec.kept, model, variant.seed)
            with tracking.stage_run(f"ablate distill: {name}", variant.model_dump(), {"ablation": "distill"}) as record:
                trained = distill(
                    student,
                    original,
                    spec.kept,
                    variant.distill,
                    data=config.data,
                    machine=config.machine,
                    model=model,
                    val=val.labelled(answers),
                    seed=variant.seed,
                    report=report,
                    log=record.log_live,
                    checkpoint=report / "state.ckpt",
                    purpose=[variant.start, parents],
                )
                metrics = _measure(predict(student, val), answers, val, model, config)
                metrics |= {"best_step": trained.best_step, "seconds": trained.seconds}
                record.log(metrics, 0)
            result = {"mark": mark, "variant": variant.model_dump(mode="json"), "metrics": metrics}
            write_json(report / RESULT, result | {"history": trained.history})
        finished = {other: folder / other / RESULT for other in variants}
        save_table({other: read_json(file) for other, file in finished.items() if file.is_file()}, folder)


def _is_done(file: Path, mark: str) -> bool:
    return file.is_file() and read_json(file)["mark"] == mark


def _measure(
    predicted: Tensor, answers: Tensor, val: FaceDataset, model: MorphableModel, config: Config
) -> dict[str, Any]:
    """Geometry against the original (teacher/...) and truth (truth/...), and likeness to the original (ssim, ...)."""
    errors = reference_errors(model, {"": predicted}, {"teacher": answers, **val.truth()})
    renderer = Renderer(model, val.image_size, config.data.supersample)
    pair = predicted[:RENDERED], answers[:RENDERED]
    likeness = uv_likeness(model, UvMap(model, config.evaluate.uv_size), *pair) | render_likeness(renderer, *pair)
    return {name.removeprefix("/"): value for name, value in errors.items()} | means(likeness)
