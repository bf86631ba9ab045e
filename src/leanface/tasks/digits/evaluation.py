"""Evaluate a network that reads digits."""

from pathlib import Path

from leanface.config import Evaluate, Samples
from leanface.task import Run, Scores
from leanface.tasks.classification.evaluation import evaluate_classifier
from leanface.tasks.digits.task import DigitsTask


def evaluate(teacher: Run, student: Run, settings: Evaluate, data: Samples, batch_size: int, folder: Path) -> Scores:
    """Compare it with the teacher; see `leanface.task.WholeTask.evaluate`."""
    return evaluate_classifier(DigitsTask(), teacher, student, settings, batch_size, folder)
