"""Make the network that digits are first read with."""

from leanface.config import Machine, Original, Samples
from leanface.task import MadeTeacher, MetricLog
from leanface.tasks.classification.teacher import make_classifier
from leanface.tasks.digits.network import DigitsNetwork
from leanface.tasks.digits.task import DigitsTask


def make_teacher(
    settings: Original, data: Samples, machine: Machine, seed: int, log: MetricLog, seconds: float | None
) -> MadeTeacher:
    """Train it from scratch; see `leanface.task.WholeTask.make_teacher`."""
    return make_classifier(DigitsTask(), DigitsNetwork(), settings, data, machine, seed, log, seconds)
