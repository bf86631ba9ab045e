"""What is measured of a classifier from end to end."""

from leanface.config import Benchmark, Samples
from leanface.task import Journey


def no_journey(settings: Benchmark, data: Samples) -> Journey | None:
    """Return None: nothing is done with an image beside running the network."""
