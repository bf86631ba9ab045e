"""Stage probe: what this machine is, for engines and latencies hold for it alone."""

import json

from leanface import paths
from leanface.device import describe_device
from leanface.files import atomic_write


def run() -> dict[str, float]:
    atomic_write(paths.DEVICE, json.dumps(describe_device(), indent=1, sort_keys=True) + "\n")
    return {}
