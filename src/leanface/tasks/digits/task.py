"""Digits, as compression sees them."""

from leanface.catalog import TASKS
from leanface.tasks.classification.task import ClassificationTask
from leanface.tasks.digits.network import OUTPUTS


class DigitsTask(ClassificationTask):
    """Which of ten digits an image shows; implements `leanface.task.Task`."""

    subject = TASKS["digits"].subject
    outputs = OUTPUTS
