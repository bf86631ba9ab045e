"""Training with Lightning: any network, any criterion, from disk or streamed, in one go or in pieces."""

import csv
import logging
import os
import sys
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, cast

import pytorch_lightning as L
import torch
from pytorch_lightning.callbacks import Callback, Timer, TQDMProgressBar
from torch import nn

from leanface.catalog import Subject
from leanface.config import Machine, Optimizer
from leanface.errors import Unfinished
from leanface.files import staged_file
from leanface.task import MetricLog, Task, TrainingData
from leanface.training.batch_norm import measure_batch_norm
from leanface.training.checkpoint import Best, Checkpoint, fingerprint
from leanface.training.curves import plot_curves
from leanface.training.module import Criterion, TrainingModule

logger = logging.getLogger(__name__)

POINTS = 8
"""How many times a training is validated and written to its curves, beside its start."""


@dataclass(frozen=True)
class Session:
    """How and where one training runs.

    Attributes:
        report: folder that receives history.csv and curves.png.
        log: receives each validation's metrics.
        checkpoint: file that holds the state, its name extended by what is trained; a training resumes from it if it
            exists, and removes it at the end.
        run_key: what identifies this training besides its initial weights, optimizer and seed (see `Checkpoint`).
        piece_seconds: stop after this many seconds with the state saved; needs `checkpoint`.
    """

    machine: Machine
    seed: int
    report: Path
    log: MetricLog | None = None
    checkpoint: Path | None = None
    run_key: Sequence[object] = ()
    piece_seconds: float | None = None


@dataclass(frozen=True)
class FitResult:
    """`history` holds one row per validation: step, seconds of training, train/... (that step's) and val/...

    The first row is from before the training, so its result is never worse on the val split than its start.
    `best_step` is the one whose weights the network ended with.
    """

    history: list[dict[str, float]]
    best_step: int
    seconds: float
    images_per_second: float


class _History(Callback):
    """Collects the curves, and passes them on as they grow: `dvc plots` shows the files at any time."""

    def __init__(self, log: MetricLog | None, report: Path, subject: Subject, timer: Timer) -> None:
        self.rows: list[dict[str, float]] = []
        self._log = log
        self._report = report
        self._subject = subject
        self._timer = timer
        self._written = 0

    def on_validation_end(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        names = ("train/", "val/")
        row = {name: float(value) for name, value in trainer.callback_metrics.items() if name.startswith(names)}
        row["learning_rate"] = float(trainer.optimizers[0].param_groups[0]["lr"])
        seconds = self._timer.time_elapsed("train")
        self.rows.append({"step": float(trainer.global_step), "seconds": seconds, **row})
        if trainer.is_global_zero:
            self.write()
        if self._log is not None:
            self._log(row, trainer.global_step)

    def state_dict(self) -> dict[str, Any]:
        return {"rows": self.rows}

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        self.rows = state_dict["rows"]

    def write(self) -> None:
        """Write the curves so far, as numbers and as a picture, unless they are written already."""
        if self._written == len(self.rows):
            return
        self._written = len(self.rows)
        names = {name for row in self.rows for name in row}
        columns = sorted(names, key=lambda name: (name != "step", name != "seconds", name))
        with staged_file(self._report / "history.csv") as staging, staging.open("w", newline="") as file:
            writer = csv.DictWriter(file, columns)
            writer.writeheader()
            writer.writerows(self.rows)
        plot_curves(self.rows, self._subject.curves, self._report / "curves.png")


def resolve_accelerator(machine: Machine) -> str:
    """Return "gpu" or "cpu"."""
    if machine.accelerator == "auto":
        return "gpu" if torch.cuda.is_available() else "cpu"
    return machine.accelerator


def resolve_device(machine: Machine) -> torch.device:
    """Return the device of this process: with several devices, Lightning numbers the copies of a command."""
    if resolve_accelerator(machine) == "cpu":
        return torch.device("cpu")
    return torch.device("cuda", int(os.environ.get("LOCAL_RANK", "0")))


def resolve_precision(machine: Machine, accelerator: str) -> Any:
    """Choose mixed bf16 where the processor computes in it: elsewhere it is emulated, and slower than FP32."""
    if machine.precision != "auto":
        return machine.precision
    if accelerator == "gpu":
        return "bf16-mixed" if torch.cuda.is_bf16_supported(including_emulation=False) else "16-mixed"
    capabilities = torch.cpu.get_capabilities()
    return "bf16-mixed" if capabilities.get("avx512_bf16") or capabilities.get("amx_bf16") else "32-true"


def fit(
    network: nn.Module,
    criterion: Criterion,
    data: TrainingData,
    optimizer: Optimizer,
    session: Session,
    *,
    task: Task,
    freeze_batch_norm: bool = False,
    points: int = POINTS,
) -> FitResult:
    """Train `network` in place; it ends on the CPU, in eval mode, with the averaged weights that validated best.

    With live batch norms and streamed faces, the averaged weights' statistics are measured anew for every validation,
    at the size of the prepared faces (see `measure_batch_norm`): steps take sizes in turn, and each has its own.

    Args:
        criterion: an nn.Module is moved to the training device.
        task: for the validation errors; moved to the training device and back.
        points: how many times to validate, beside the start.

    Raises:
        Unfinished: the session's `piece_seconds` were over before the last step.
        KeyboardInterrupt: Ctrl-C; the state is the last validation's.
        LeanFaceError: the loss is not finite.
        SystemExit: this process is the copy that Lightning started for another device than the first (quietly).
    """
    # Its advice on hardware and add-ons is not about this training.
    logging.getLogger("pytorch_lightning.utilities.rank_zero").setLevel(logging.WARNING)
    machine, report = session.machine, session.report
    L.seed_everything(session.seed, workers=True, verbose=False)
    if machine.threads:
        torch.set_num_threads(machine.threads)
    accelerator = resolve_accelerator(machine)
    device = resolve_device(machine)
    task.to(device)
    if isinstance(criterion, nn.Module):
        criterion.to(device)
    network.to(device=device, memory_format=torch.channels_last).train()  # pyright: ignore[reportCallIssue]
    refresh_batch_norm = None if freeze_batch_norm or not data.streamed else _statistics(data)
    module = TrainingModule(network, criterion, optimizer, task, freeze_batch_norm, machine.compile, refresh_batch_norm)

    state = None
    if session.checkpoint is not None:
        mark = fingerprint(network, [optimizer, session.seed, *session.run_key])
        state = Checkpoint(session.checkpoint, mark, session.piece_seconds)
    states = [] if state is None else [state]
    every = max(1, optimizer.steps // points)
    bars = [TQDMProgressBar(refresh_rate=max(1, every // 5))] if sys.stderr.isatty() else []
    timer = Timer()
    history = _History(session.log, report, task.subject, timer)
    best = Best(module.average, task.selection)
    trainer = L.Trainer(
        accelerator=accelerator,
        devices=machine.devices,
        precision=resolve_precision(machine, accelerator),
        max_steps=optimizer.steps,
        max_epochs=-1,
        val_check_interval=every,
        check_val_every_n_epoch=None,
        num_sanity_val_steps=-1,  # all of it: where the training starts from
        log_every_n_steps=10,
        callbacks=[history, timer, best, *states, *bars],
        logger=False,
        enable_checkpointing=False,
        enable_model_summary=False,
        enable_progress_bar=bool(bars),
    )
    try:
        trainer.fit(
            module, datamodule=cast(L.LightningDataModule, data), ckpt_path=state and state.found, weights_only=True
        )
    except SystemExit:
        if trainer.interrupted:  # Lightning makes this of Ctrl-C
            raise KeyboardInterrupt from None
        raise
    finished = trainer.global_step >= optimizer.steps
    if state is not None and not finished:
        state.save(trainer)
    if not trainer.is_global_zero:
        raise SystemExit(0)
    history.write()
    if not finished:
        progress = f"{trainer.global_step} of {optimizer.steps} steps are done"
        raise Unfinished(f"{progress}; run the stage again to go on.")
    best.restore()
    logger.info("step %d of %d was the best: %s = %.3f", best.step, optimizer.steps, best.measure, best.error)
    module.average.swap(network)
    network.to("cpu").eval()
    task.to("cpu")

    seconds = timer.time_elapsed("train")
    if state is not None:
        state.remove()
    return FitResult(history.rows, best.step, seconds, optimizer.steps * data.batch_size / max(seconds, 1e-9))


def _statistics(data: TrainingData) -> Callable[[nn.Module], None]:
    """Measure a network's batch norms on faces of the size that it is for, rendered once and kept."""
    kept = [images.cpu() for images in data.statistics_images()]

    def refresh(network: nn.Module) -> None:
        device = next(network.parameters()).device
        measure_batch_norm(network, (images.to(device).float() / 255.0 for images in kept))

    return refresh
