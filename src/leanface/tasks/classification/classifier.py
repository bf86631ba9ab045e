"""The base of a user's own classifier: with a network and samples, it is all that the pipeline asks of a task."""

import traceback
from collections.abc import Callable
from pathlib import Path
from typing import Any, TypeVar

from torch import nn

from leanface.config import Benchmark, Evaluate, Machine, Original, Samples
from leanface.errors import ConfigError
from leanface.networks.widths import Widths, with_widths
from leanface.task import Journey, Layout, MadeTeacher, MetricLog, Run, Scores
from leanface.tasks.classification.journey import no_journey
from leanface.tasks.classification.task import ClassificationTask

T = TypeVar("T")


class Classifier(ClassificationTask):
    """Implements `leanface.task.WholeTask`; a class that is derived from it has `classes`, `network` and `samples`.

    Attributes:
        class_count: how many classes there are.
        image_size: height and width of the images in pixels.
        any_size: whether the network reads all sizes from 64 px in multiples of 16.
    """

    class_count: int
    image_size: int
    any_size = False

    def network(self) -> nn.Module:
        """Build the network as designed, freshly initialized: images (B,3,H,W) to logits (B,classes)."""
        raise NotImplementedError

    def samples(self, seed: int) -> dict[str, tuple[Any, Any]]:
        """Return the splits, {"train": (images, labels), "val": ..., "test": ...}, as arrays or tensors.

        Images are float (N,3,H,W) in [0,1], or uint8; labels are integers (N,) from 0.
        """
        raise NotImplementedError

    @property
    def outputs(self) -> Layout:  # pyright: ignore[reportIncompatibleVariableOverride]
        """The layout of the outputs."""
        return {"scores": (0, self.class_count)}

    def build(self, widths: Widths | None = None) -> nn.Module:
        """Build the network; see `leanface.task.TaskNetwork.build`.

        Raises:
            ConfigError: `network` fails.
        """
        network = self._own(self.network)
        return network if widths is None else with_widths(network, widths, self.image_size)

    # Imported where they are needed: reading a bundle must not take Lightning and Matplotlib.

    def prepare(self, data: Samples, seed: int) -> dict[str, float]:
        """Write `samples`; see `leanface.task.WholeTask.prepare`.

        Raises:
            ConfigError: `samples` fails.
        """
        from leanface.tasks.classification.data import Labeled
        from leanface.tasks.classification.prepare import prepare_samples

        splits = self._own(lambda: {name: Labeled(*split) for name, split in self.samples(seed).items()})
        return prepare_samples(splits, self.classes, data, seed)

    def make_teacher(
        self, settings: Original, data: Samples, machine: Machine, seed: int, log: MetricLog, seconds: float | None
    ) -> MadeTeacher:
        """Train the network on the labels; see `leanface.task.WholeTask.make_teacher`."""
        from leanface.tasks.classification.teacher import make_classifier

        return make_classifier(self, self, settings, data, machine, seed, log, seconds)

    def evaluate(
        self, teacher: Run, student: Run, settings: Evaluate, data: Samples, batch_size: int, folder: Path
    ) -> Scores:
        """Compare two networks; see `leanface.task.WholeTask.evaluate`."""
        from leanface.tasks.classification.evaluation import evaluate_classifier

        return evaluate_classifier(self, teacher, student, settings, batch_size, folder)

    def journey(self, settings: Benchmark, data: Samples) -> Journey | None:
        """Return None; see `no_journey`."""
        return no_journey(settings, data)

    def _own(self, call: Callable[[], T]) -> T:
        """Call what the user wrote, and name the line where it fails."""
        try:
            return call()
        except Exception as error:
            last = traceback.extract_tb(error.__traceback__)[-1]
            what = f"{type(self).__name__} fails: {type(error).__name__}: {error}"
            raise ConfigError(f"{what} ({last.filename}, line {last.lineno}).") from error
