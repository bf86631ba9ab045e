"""The error of an architecture once all of its layers are re-fitted, on the val split."""

import copy
from functools import cached_property

import torch
from torch import Tensor, nn

from leanface.config import Machine, Prune
from leanface.metrics.outputs import predict, reference_errors
from leanface.networks.widths import without_blocks
from leanface.pruning.compensate import compensate
from leanface.pruning.gradients import Calibration
from leanface.pruning.importance import build_importance
from leanface.pruning.plan import Architecture
from leanface.pruning.prune import Scorer
from leanface.search.record import Errors
from leanface.task import Task
from leanface.training.fit import resolve_device


class Refitter:
    """Prunes one network to architectures, and re-fits them."""

    def __init__(self, teacher: nn.Module, task: Task, settings: Prune, machine: Machine, seed: int) -> None:
        """Take a network in eval mode, on the CPU, with its task's samples."""
        self._teacher, self._task, self._settings, self._seed = teacher, task, settings, seed
        self._device = resolve_device(machine)
        self._there = copy.deepcopy(teacher).to(self._device)
        self._train, self._val = task.split("train"), task.split("val")

    @cached_property
    def references(self) -> dict[str, Tensor]:
        """What errors are measured against."""
        return {"teacher": predict(self._there, self._val), **self._val.truth()}

    @cached_property
    def _scores(self) -> dict[str, Tensor]:
        images = self._train.head(self._settings.gradient_count).images
        importance = build_importance(self._settings.importance)
        size = self._train.image_size
        return Scorer(self._teacher, importance, self._seed, Calibration(images, self._task), size).scores

    def network(self, architecture: Architecture, count: int) -> nn.Module:
        """Return the re-fitted network, on the CPU.

        Args:
            count: samples of the train split that it is re-fitted on.
        """
        shallower = without_blocks(copy.deepcopy(self._teacher), architecture.dropped)
        network, kept = Scorer(shallower, self._scores, self._seed, None, self._train.image_size).keep(
            architecture.counts
        )
        images, settings = self._train.head(count).images.to(self._device), self._settings
        network = network.to(self._device)
        return compensate(network, self._there, kept, images, settings.ridge, settings.position_share)[0].cpu()

    @torch.inference_mode()
    def errors(self, network: nn.Module) -> Errors:
        """Measure a network against the original and the truth, as REFERENCE_ERROR."""
        predicted = predict(copy.deepcopy(network).to(self._device), self._val)
        found = reference_errors(self._task, {"": predicted}, self.references)
        return {name.removeprefix("/"): value for name, value in found.items()}

    def original(self) -> Errors:
        """Measure the original."""
        found = reference_errors(self._task, {"": self.references["teacher"]}, self.references)
        return {name.removeprefix("/"): value for name, value in found.items()}
