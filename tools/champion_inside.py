"""What `tools.champion` runs where only the model's own requirements are installed: NAME IMAGES OUT."""

import importlib
import json
import sys
import time
from pathlib import Path
from statistics import median
from typing import Any

BATCH_SIZE = 32
"""Of stage evaluate: a runtime may round the same image differently in another batch."""

CALLS = 300


def main(name: str, images: str, out: str) -> None:
    """Write the coefficients of all images, and of the first two alone; print the median times of one image."""
    import numpy as np

    mlflow: Any = importlib.import_module("mlflow")  # its own types leave much open
    model = mlflow.pyfunc.load_model(name)
    crops = np.load(images)
    np.save(
        out, np.concatenate([model.predict(crops[at : at + BATCH_SIZE]) for at in range(0, len(crops), BATCH_SIZE)])
    )
    np.save(Path(out).with_name("pair.npy"), model.predict(crops[:2]))
    runtime = model.unwrap_python_model()._runtime
    floats = np.ascontiguousarray(crops[:1].transpose(0, 3, 1, 2), np.float32) / np.float32(255)
    times: dict[str, list[float]] = {"latency_ms": [], "network_ms": []}
    for _ in range(CALLS):  # in turns
        for key, call in (
            ("latency_ms", lambda: model.predict(crops[:1])),
            ("network_ms", lambda: runtime.run(floats)),
        ):
            start = time.perf_counter()
            call()
            times[key].append(1000 * (time.perf_counter() - start))
    print(json.dumps({key: median(each) for key, each in times.items()}))


if __name__ == "__main__":
    main(*sys.argv[1:])
