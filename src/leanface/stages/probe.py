"""Stage probe: what this machine is, for engines and latencies hold for it alone."""

import json
import os

from leanface import paths
from leanface.device import describe_device


def run() -> dict[str, float]:
    paths.DEVICE.parent.mkdir(parents=True, exist_ok=True)
    staging = paths.DEVICE.with_suffix(".tmp")
    staging.write_text(json.dumps(describe_device(), indent=1, sort_keys=True) + "\n")
    os.replace(staging, paths.DEVICE)
    return {}
