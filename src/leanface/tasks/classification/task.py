"""A classifier, as compression sees it: its outputs are logits."""

from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Any, Self

import torch
import torch.nn.functional as F
from jaxtyping import Float
from torch import Tensor, nn

from leanface import paths
from leanface.catalog import CLASSIFICATION
from leanface.config import Samples
from leanface.errors import ConfigError
from leanface.task import PLAIN, Deviation, Split, Terms

if TYPE_CHECKING:
    from leanface.tasks.classification.batches import ImageData
    from leanface.tasks.classification.data import ImageSplit

KL = "kl"


def kl_divergence(
    predicted: Float[Tensor, "batch classes"], target: Float[Tensor, "batch classes"], temperature: float = 1.0
) -> Float[Tensor, " batch"]:
    """Compute how far the class probabilities of one network's logits are from another's, in nats.

    Times the square of the temperature, so that its gradient does not fade as the temperature rises.

    Source: Hinton et al., "Distilling the Knowledge in a Neural Network", 2015 (arXiv:1503.02531).
    """
    ours, theirs = F.log_softmax(predicted / temperature, 1), F.log_softmax(target / temperature, 1)
    return F.kl_div(ours, theirs, reduction="none", log_target=True).sum(1) * temperature**2


class Divergence(nn.Module):
    """`kl_divergence` as a term of a loss; against a label, see `ImageSplit`, at temperature 1 the cross-entropy."""

    def __init__(self, temperature: float = 1.0) -> None:
        super().__init__()
        self.temperature = temperature

    def per_sample(self, predicted: Tensor, target: Tensor) -> Float[Tensor, " batch"]:
        """Compute it for each sample."""
        return kl_divergence(predicted.float(), target.float(), self.temperature)


class ClassificationTask:
    """Outputs are logits of `outputs["scores"]`; implements `leanface.task.Task`, and is derived from."""

    subject = CLASSIFICATION
    selection = KL
    naming = PLAIN
    outputs: Any
    """The network's, {"scores": (0, classes)}."""

    @classmethod
    def load(cls, data: Samples) -> Self:
        """Make the task: it needs nothing of stage prepare but the splits."""
        return cls()

    @property
    def classes(self) -> int:
        """How many there are."""
        return max(stop for _, stop in self.outputs.values())

    def to(self, device: torch.device | str) -> Self:
        """Do nothing: errors are computed with nothing."""
        return self

    def split(self, name: str) -> "ImageSplit":
        """Open a stored split; see `leanface.task.Task.split`."""
        from leanface.tasks.classification.data import ImageSplit

        return ImageSplit(paths.SAMPLES / name, self.classes)

    def training_data(
        self,
        batch_size: int,
        seed: int,
        *,
        stream_sizes: tuple[int, ...] | None = None,
        device: torch.device | None = None,
        val: Split | None = None,
    ) -> "ImageData":
        """Return stored samples; see `leanface.task.Task.training_data`.

        Raises:
            ConfigError: streamed samples are asked for.
        """
        from leanface.tasks.classification.batches import ImageData

        if stream_sizes is not None:
            raise ConfigError("distill.streamed is for faces, which can be rendered; set it to false.")
        return ImageData(self.split("train"), self.split("val"), batch_size, seed)

    def output_scales(self) -> dict[str, float]:
        """Return {}: logits are near 1."""
        return {}

    def output_weights(self, outputs: Float[Tensor, "count classes"]) -> Float[Tensor, " classes"]:
        """Weigh all logits alike, by their variance over samples and classes."""
        return torch.ones(outputs.shape[1]) / outputs.var().clamp_min(1e-8)

    def errors(self, predicted: Tensor, target: Tensor) -> dict[str, Float[Tensor, " batch"]]:
        """Measure the divergence, and whether the class is another one."""
        wrong = predicted.argmax(1) != target.argmax(1)
        return {KL: kl_divergence(predicted.float(), target.float()), "error": wrong.float()}

    def terms(self, names: Sequence[str], temperature: float) -> Terms:
        """Build the softened divergence from the teacher, and the cross-entropy with labels.

        Raises:
            ConfigError: another term is asked for.
        """
        if unknown := sorted(set(names) - {KL}):
            raise ConfigError(f"distill.terms: there is no {', '.join(unknown)}; use {KL}.")
        return Terms({name: Divergence(temperature) for name in names}, {name: Divergence() for name in names})

    def whole_error(self) -> nn.Module:
        """Build the cross-entropy."""
        return Divergence()

    def deviation_from(self, outputs: Tensor, image_size: int) -> Callable[[Tensor], Deviation]:
        """Return what measures how far other answers are from these."""

        def deviation(other: Tensor) -> Deviation:
            return {name: float(values.mean()) for name, values in self.errors(other, outputs).items()}

        return deviation
