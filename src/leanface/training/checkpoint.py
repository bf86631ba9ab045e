"""What is kept of a training: its state on disk, to go on after a kill or run in pieces, and its best weights."""

import hashlib
import math
import os
import re
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytorch_lightning as L
from pytorch_lightning.callbacks import Callback
from torch import Tensor, nn

from leanface.training.average import WeightAverage


def fingerprint(network: nn.Module, run_key: Sequence[object]) -> str:
    """Return a digest that tells one training from another: of the weights it starts from, and `run_key` as text."""
    hasher = hashlib.sha256(repr(run_key).encode())
    for tensor in network.state_dict().values():
        hasher.update(tensor.detach().cpu().contiguous().numpy().tobytes())
    return hasher.hexdigest()[:12]


class Checkpoint(Callback):
    """Saves the state at every validation, and stops a training whose piece of time is over.

    The file's name holds the training's fingerprint, so that no other one takes it for its own.

    Args:
        path: of the file, less the fingerprint.
        mark: the fingerprint.
        piece_seconds: stop after this many seconds. (Lightning's Timer counts the pieces before a resumption too.)
    """

    EVERY = 20
    """Devices must stop at the same step; they agree on it this often, because agreeing waits for the slowest."""

    def __init__(self, path: Path, mark: str, piece_seconds: float | None) -> None:
        self.path = path.with_name(f"{path.stem}-{mark}{path.suffix}")
        self._siblings = re.compile(rf"{re.escape(path.stem)}-[0-9a-f]{{12}}({re.escape(path.suffix)}|\.tmp)")
        self._seconds = piece_seconds
        self._start = time.monotonic()

    @property
    def found(self) -> Path | None:
        """Where to resume from."""
        return self.path if self.path.exists() else None

    def save(self, trainer: L.Trainer) -> None:
        """Write the state, whole or not at all; to be called on all devices."""
        self.path.parent.mkdir(parents=True, exist_ok=True)
        staging = self.path.with_suffix(".tmp")
        trainer.save_checkpoint(staging, weights_only=False)
        if trainer.is_global_zero:
            os.replace(staging, self.path)

    def remove(self) -> None:
        """Remove the state of this training, which is over, and those of others that were given up."""
        for path in self.path.parent.glob("*"):
            if self._siblings.fullmatch(path.name) and not path.is_dir():
                path.unlink(missing_ok=True)

    def on_validation_end(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        if 0 < trainer.global_step < trainer.max_steps:
            self.save(trainer)

    def on_train_batch_end(
        self, trainer: L.Trainer, pl_module: L.LightningModule, outputs: Any, batch: Any, batch_idx: int
    ) -> None:
        if self._seconds is not None and trainer.global_step % self.EVERY == 0:
            over = time.monotonic() - self._start > self._seconds
            trainer.should_stop |= trainer.strategy.reduce_boolean_decision(over, all=False)


class Best(Callback):
    """Keeps the averaged weights of the validation with the least error, the first before training included.

    Attributes:
        measure: the metric that is the error.
        error: the least error.
        step: where it was met.
    """

    def __init__(self, average: WeightAverage, selection: str) -> None:
        self.measure = f"val/{selection}"
        self.error, self.step = math.inf, 0
        self._average = average
        self._kept: list[Tensor] = []

    def restore(self) -> None:
        """Make the kept weights the average again."""
        if self._kept:
            self._average.tensors = self._kept

    def on_validation_end(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        error = float(trainer.callback_metrics[self.measure])
        if error < self.error:
            self.error, self.step = error, trainer.global_step
            self._kept = [tensor.clone() for tensor in self._average.tensors]

    def state_dict(self) -> dict[str, Any]:
        return {"error": self.error, "step": self.step, "kept": self._kept}

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        self.error, self.step, self._kept = (state_dict[name] for name in ("error", "step", "kept"))
