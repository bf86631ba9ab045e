"""`leanface ablate distill`: every variant from the same data and number of steps, measured on the val split."""

import functools
import logging
import time
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from leanface import bundle, paths, tracking
from leanface.ablation.start import Kept, pipeline_student, pruned_student, starting_network
from leanface.ablation.table import RESULT, save_table
from leanface.ablation.variants import Variant, read_variants
from leanface.config import Config, Prune, load_config
from leanface.data.dataset import FaceDataset
from leanface.distillation.distill import distill
from leanface.face.morphable_model import load_morphable_model
from leanface.face.render import Renderer
from leanface.face.texture import UvMap
from leanface.metrics.estimate import means
from leanface.metrics.fidelity import render_likeness, uv_likeness
from leanface.metrics.geometry import predict, reference_errors
from leanface.networks.resnet import FaceReconstructionNet, widths_of
from leanface.pruning.cost import macs_and_parameters
from leanface.report.files import Json, read_json, write_json
from leanface.training.checkpoint import Unfinished, fingerprint
from leanface.training.fit import resolve_device

logger = logging.getLogger(__name__)

RENDERED = 256
"""Faces of the val split that are rendered for comparison."""

SPARE_SECONDS = 30.0
"""Of a piece's time, not for training: what comes before it, the last validation and the measuring after it."""


def ablate(
    table: Path,
    folder: Path,
    steps: int | None = None,
    share: tuple[int, int] = (1, 1),
    seconds: float | None = None,
) -> None:
    """Train and measure every variant that was not done yet; the table and its pictures grow as they are done.

    Nothing else is needed than reports/config.yaml, the original's bundle, the prepared faces (of those, streamed
    distillation needs the val split alone), and for variants that do not prune anew the pruned bundle.

    Args:
        table: YAML, see conf/ablation/distill.yaml.
        folder: where results go; a finished variant whose conditions are the same is not run again.
        steps: in place of the configuration's.
        share: (number, count) of this process among those that share the table; every `count`-th variant is its own.
        seconds: after which nothing more is trained; the same command goes on.

    Raises:
        ConfigError: the table is not valid, or the pruned network has no record.
        Unfinished: the time was over.
    """
    end = None if seconds is None else time.monotonic() + seconds
    config = load_config(paths.CONFIG)
    if steps is not None:
        optimizer = config.distill.optimizer.model_copy(update={"steps": steps})
        config = config.model_copy(update={"distill": config.distill.model_copy(update={"optimizer": optimizer})})
    variants = read_variants(table, config)
    lab, (number, count) = _Lab(config), share
    for place, (name, variant) in enumerate(variants.items()):
        if place % count != number - 1:
            continue
        report = folder / name
        mark = lab.mark(variant)
        if not _is_done(report / RESULT, mark):
            left = None if end is None else end - time.monotonic() - SPARE_SECONDS
            if left is not None and left <= 0:
                raise Unfinished(f"the time was over before {name}; run the same command again to go on.")
            logger.info("%s: from %s, %d steps", name, variant.start, variant.distill.optimizer.steps)
            result = lab.run(name, variant, report, left)
            write_json(report / RESULT, {"mark": mark, "place": place, "name": name, **result})
        finished = {other: folder / other / RESULT for other in variants}
        save_table({other: read_json(file) for other, file in finished.items() if file.is_file()}, folder)


def _is_done(file: Path, mark: str) -> bool:
    return file.is_file() and read_json(file)["mark"] == mark


class _Lab:
    """What all variants have in common, and the students that some of them do."""

    def __init__(self, config: Config) -> None:
        self._config = config
        self._model = load_morphable_model(paths.MORPHABLE_MODEL)
        self._val = FaceDataset(paths.FACES / "val")
        self._original, _ = bundle.load_network(paths.TEACHER)
        self._device = resolve_device(config.machine)
        self._answers = predict(self._original.to(self._device), self._val)
        self._original.to("cpu")
        self._renderer = Renderer(self._model, self._val.image_size, config.data.supersample)
        self._uv_map = UvMap(self._model, config.evaluate.uv_size)
        self._students: dict[str, tuple[FaceReconstructionNet, Kept]] = {}

    @functools.cached_property
    def _digests(self) -> dict[str, str]:
        return {"teacher": bundle.digest(paths.TEACHER)}

    @functools.cached_property
    def _pipelines_digests(self) -> dict[str, str]:
        return {"parent": bundle.digest(paths.PRUNED)} | self._digests

    @functools.cached_property
    def _originals(self) -> dict[str, float]:
        """Errors to truth of the original, and its cost."""
        errors = reference_errors(self._model, {"": self._answers}, self._val.truth())
        return {name.removeprefix("/"): value for name, value in errors.items()} | self._cost(self._original)

    def mark(self, variant: Variant) -> str:
        """Tells the conditions of one variant from those of any other."""
        return fingerprint(self._original, [variant, self._config.data, self._parents(variant.prune)])

    def run(self, name: str, variant: Variant, report: Path, seconds: float | None) -> Json:
        """Train and measure one; its curve and, while it is not finished, its state lie in `report`."""
        original, model, config = self._original, self._model, self._config
        pruned, kept = self._student(variant.prune, variant.seed)
        student = starting_network(variant.start, original, pruned, kept, model, variant.seed)
        with tracking.stage_run(f"ablate distill: {name}", variant.model_dump(), {"ablation": "distill"}) as record:
            trained = distill(
                student,
                original,
                kept,
                variant.distill,
                data=config.data,
                machine=config.machine,
                model=model,
                val=self._val.labelled(self._answers),
                seed=variant.seed,
                report=report,
                log=record.log_live,
                checkpoint=report / "state.ckpt",
                purpose=[variant.start, self._parents(variant.prune)],
                piece_seconds=seconds,
            )
            metrics = self._measure(predict(student, self._val)) | self._cost(student)
            metrics |= {"best_step": trained.best_step, "seconds": trained.seconds}
            record.log(metrics, 0)
        return {
            "variant": variant.model_dump(mode="json"),
            "metrics": metrics,
            "original": self._originals,
            "image_size": self._val.image_size,
            "widths": widths_of(student),
            "history": trained.history,
        }

    def _student(self, settings: Prune | None, seed: int) -> tuple[FaceReconstructionNet, Kept]:
        key = "" if settings is None else f"{settings.model_dump_json()} {seed}"
        if key not in self._students:
            self._students[key] = (
                pipeline_student()
                if settings is None
                else pruned_student(self._original, settings, self._model, seed, self._device)
            )
        return self._students[key]

    def _parents(self, settings: Prune | None) -> dict[str, str]:
        return self._digests if settings is not None else self._pipelines_digests

    def _cost(self, network: FaceReconstructionNet) -> dict[str, float]:
        macs, parameters = macs_and_parameters(network, self._val.image_size)
        return {"macs": float(macs), "parameters": float(parameters)}

    @torch.no_grad()
    def _measure(self, predicted: Tensor) -> dict[str, Any]:
        """Geometry against the original (teacher/...) and truth (truth/...), likeness to the original (ssim, ...)."""
        model, answers = self._model, self._answers
        errors = reference_errors(model, {"": predicted}, {"teacher": answers, **self._val.truth()})
        pair = predicted[:RENDERED], answers[:RENDERED]
        likeness = uv_likeness(model, self._uv_map, *pair) | render_likeness(self._renderer, *pair)
        return {name.removeprefix("/"): value for name, value in errors.items()} | means(likeness)
