"""What Prometheus is told."""

import pytest

from leanface.serving.metrics import Metrics
from leanface.serving.settings import Gpu


@pytest.mark.parametrize(
    ("places", "gpus"), [((Gpu(0, "GPU-a"), Gpu(2, "GPU-b")), ("0", "2")), ((None, None), ("", ""))]
)
def test_it_says_which_gpus_workers_are_ready(places: tuple[Gpu | None, ...], gpus: tuple[str, str]) -> None:
    ready = {0, 1}
    metrics = Metrics(lambda: 0, lambda: ready, places)

    def told() -> dict[str, str]:
        lines = metrics.exposition().decode().splitlines()
        return dict(line.rsplit(" ", 1) for line in lines if line.startswith("leanface_worker"))

    each = [f'leanface_worker_ready{{gpu="{gpu}",worker="{worker}"}}' for worker, gpu in enumerate(gpus)]
    assert told() == {"leanface_workers_ready": "2.0", each[0]: "1.0", each[1]: "1.0"}
    ready.remove(1)
    assert told() == {"leanface_workers_ready": "1.0", each[0]: "1.0", each[1]: "0.0"}
