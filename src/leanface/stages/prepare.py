"""Stage prepare: the samples of the task, in splits."""

from leanface.config import Samples, TaskChoice
from leanface.task import prepare_of


def run(*, task: TaskChoice, data: Samples, seed: int) -> dict[str, float]:
    return prepare_of(task)(data, seed)
