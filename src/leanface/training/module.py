"""The one LightningModule: teacher, distillation and quantization differ in their criterion and network only."""

import math
from collections.abc import Callable, Mapping
from typing import Any, cast

import torch
from pytorch_lightning import LightningModule
from torch import Tensor, nn

from leanface.config import Optimizer
from leanface.errors import LeanFaceError
from leanface.task import Batch, Task
from leanface.training.average import WeightAverage
from leanface.training.batch_norm import batch_norms
from leanface.training.muon import Muon

Criterion = Callable[[nn.Module, Batch], dict[str, Tensor]]
"""(network, batch) to named terms; "loss" is minimized, the others are logged."""


class TrainingModule(LightningModule):
    """Minimizes a criterion and keeps an exponential moving average of the network's weights.

    Args:
        network: trained in place.
        criterion: kept out of this module's parameters and checkpoints; move it to the right device yourself.
        task: what the outputs mean: their errors and their scales.
        compiled: train through torch.compile, with a graph per image size; pays off from some minutes on a GPU.
        refresh_batch_norm: refreshes the batch-norm statistics for the averaged weights, before each validation.
    """

    def __init__(
        self,
        network: nn.Module,
        criterion: Criterion,
        optimizer: Optimizer,
        task: Task,
        freeze_batch_norm: bool,
        compiled: bool = False,
        refresh_batch_norm: Callable[[nn.Module], None] | None = None,
    ) -> None:
        super().__init__()
        self.network = network
        self.settings = optimizer
        self.head_scales = task.output_scales()
        self.freeze_batch_norm = freeze_batch_norm
        self.average = WeightAverage(network, optimizer.ema_decay)
        self._refresh_batch_norm = refresh_batch_norm
        # In a tuple, so that Lightning neither moves nor saves them with the module.
        self._frozen = (criterion, task)
        self._trained = (cast(nn.Module, torch.compile(network, dynamic=False)) if compiled else network,)

    def on_train_start(self) -> None:
        # Not when an epoch starts: a training that resumes within one would miss it.
        self.network.train()
        if self.freeze_batch_norm:
            for norm in batch_norms(self.network):
                norm.eval()

    def training_step(self, batch: Batch, batch_index: int) -> Tensor:
        images = batch.images.contiguous(memory_format=torch.channels_last)
        terms = self._frozen[0](self._trained[0], batch._replace(images=images))
        if self._watched():
            self.log_dict({f"train/{name}": value.detach() for name, value in terms.items()}, batch_size=len(images))
        return terms["loss"]

    def _watched(self) -> bool:
        """Tell whether a step is logged: some, and those before a validation, because reading a loss waits."""
        done, every = self.global_step + 1, self.trainer.val_check_interval
        return done % 20 == 1 or done % int(every or 1) == 0 or done == self.settings.steps

    def on_before_optimizer_step(self, optimizer: Any) -> None:
        # Not by Lightning, which refuses to clip for fused optimizers under mixed precision, needed or not.
        nn.utils.clip_grad_norm_(self.network.parameters(), self.settings.gradient_clip)
        loss = self.trainer.callback_metrics.get("train/loss") if self._watched() else None
        if loss is not None and not bool(torch.isfinite(loss)):
            raise LeanFaceError(
                f"the loss is {float(loss)} at step {self.global_step}; lower optimizer.learning_rate "
                "or optimizer.gradient_clip of this stage."
            )

    def on_train_batch_end(self, outputs: Any, batch: Any, batch_idx: int) -> None:
        self.average.update(self.network)

    def on_validation_epoch_start(self) -> None:
        self.average.swap(self.network)
        self.network.eval()
        if self._refresh_batch_norm is not None:
            self._refresh_batch_norm(self.network)

    def validation_step(self, batch: Batch, batch_index: int) -> None:
        predicted = self.network(batch.images.contiguous(memory_format=torch.channels_last)).float()
        assert batch.targets is not None  # samples without labels are validated against a network's outputs
        # In full precision: small errors are below bf16's resolution.
        with torch.autocast(predicted.device.type, enabled=False):
            errors = self._frozen[1].errors(predicted, batch.targets)
        means = {f"val/{name}": value.mean() for name, value in errors.items()}
        self.log_dict(means, batch_size=len(predicted), sync_dist=True)

    def on_validation_epoch_end(self) -> None:
        self.average.swap(self.network)

    def configure_optimizers(self) -> Any:
        groups = parameter_groups(self.network, self.settings, self.head_scales)
        # One kernel in place of many; under a gradient scaler it would unscale gradients later than they are clipped.
        fused = self.device.type == "cuda" and self.trainer.precision != "16-mixed"
        settings = self.settings
        if settings.algorithm == "muon":
            precision = torch.bfloat16 if self.trainer.precision == "bf16-mixed" else torch.float32
            optimizer = Muon(groups, fused=fused, precision=precision)
        else:
            optimizer = torch.optim.AdamW(groups, fused=fused)
        warmup = max(1, int(settings.warmup_fraction * settings.steps))

        def factor(step: int) -> float:
            if step < warmup:
                return (step + 1) / warmup
            return 0.5 * (1 + math.cos(math.pi * min(1.0, (step - warmup) / max(1, settings.steps - warmup))))

        schedule = torch.optim.lr_scheduler.LambdaLR(optimizer, factor)
        return {"optimizer": optimizer, "lr_scheduler": {"scheduler": schedule, "interval": "step"}}

    def on_save_checkpoint(self, checkpoint: dict[str, Any]) -> None:
        checkpoint["average"] = self.average.state_dict()

    def on_load_checkpoint(self, checkpoint: dict[str, Any]) -> None:
        self.average.load_state_dict(checkpoint["average"])


def parameter_groups(network: nn.Module, settings: Optimizer, head_scales: Mapping[str, float]) -> list[dict[str, Any]]:
    """Return the optimizer's groups: no decay on biases and norms; each head's learning rate scaled to its outputs.

    Muon orthogonalizes all that decays but the heads, whose rows differ in scale on purpose.

    Args:
        head_scales: by the head's module name.
    """
    groups: dict[tuple[float, bool, bool], list[nn.Parameter]] = {}
    for name, parameter in network.named_parameters():
        module, decays = name.rpartition(".")[0], parameter.ndim > 1
        orthogonalized = settings.algorithm == "muon" and decays and module not in head_scales
        groups.setdefault((head_scales.get(module, 1.0), decays, orthogonalized), []).append(parameter)
    return [
        {
            "params": parameters,
            "lr": settings.learning_rate * scale,
            "weight_decay": settings.weight_decay if decays else 0.0,
            "orthogonalized": orthogonalized,
        }
        for (scale, decays, orthogonalized), parameters in groups.items()
    ]
