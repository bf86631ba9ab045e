"""A worker with a second network."""

import json

import numpy as np

from leanface.serving.messages import Job
from leanface.serving.worker import Reader


def test_a_worker_with_two_networks_counts_what_it_reads_again(exported, service_settings, photo: bytes) -> None:
    """With a budget for everything, every face comes from the larger network."""
    both = service_settings.model_copy(update={"larger": exported.fp32, "budget_ms": 1e6})
    small, larger, adaptive = (
        Reader(chosen, threads=1)
        for chosen in (service_settings, service_settings.model_copy(update={"model": exported.fp32}), both)
    )
    answers = [next(reader.read([Job(photo)])) for reader in (small, larger, adaptive)]
    assert [answer.reread for answer in answers[:2]] == [0, 0]
    assert answers[2].reread == 1
    identities = [json.loads(answer.body)["faces"][0]["coefficients"]["identity"] for answer in answers]
    assert np.allclose(identities[2], identities[1], atol=1e-3)
    assert not np.allclose(identities[2], identities[0], atol=1e-3)
