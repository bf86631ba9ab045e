"""What the study of search says of what it measured."""

import pytest

from leanface.pruning.plan import Architecture
from leanface.search.record import Candidate, Point, SearchRecord
from tools.studies.search import Finished, Found, Network, tables


def network(latency_ms: float, error: float) -> Network:
    return Network(latency_ms=latency_ms, predicted_ms=1.1 * latency_ms, error=error)


def finished(title: str, latency_ms: float, error: float) -> Finished:
    errors = {"teacher_mm": error}
    return Finished(
        title=title, latency_ms=latency_ms, predicted_ms=latency_ms, refitted=errors, distilled=errors, deployed=errors
    )


def found(searched: float, faster: float) -> Found:
    """Describe a study in which the uniform network takes 1 ms and errs by 2 mm, and the faster one takes 0.8 ms."""
    candidate = Candidate(
        name="searched 1",
        architecture=Architecture((), {}),
        latency_ms=1.0,
        predicted_ms=1.2,
        size_mb=3.0,
        errors={"teacher_mm": 1.0},
    )
    record = SearchRecord(
        targets={"latency_ms": 1.0},
        runtime="openvino",
        precision="int8",
        error="mm",
        cases=20,
        model_error=0.04,
        timed=((1.0, 1.0),),
        front=(Point(latency_ms=1.0, size_mb=3.0, error=1.0, uniform_error=None),),
        candidates=(candidate,),
        chosen="searched 1",
        uniform=Architecture((), {}),
        deployed={"teacher_mm": 1.0},
        costs={"latency_ms": 1.0},
        answer=None,
        seconds={"searching": 300.0},
    )
    return Found(
        image_size=112,
        batch=1,
        record=record,
        search_error=1.5,
        chance_error=1.6,
        itself=0.01,
        dropped=("layer1.2",),
        factors={"conv1": 1.2},
        front=((network(1.0, 1.5), network(1.0, 1.8)),),
        original_ms=3.0,
        finished=(finished("uniform", 1.0, 2.0), finished("searched", 1.0, searched), finished("faster", 0.8, faster)),
        seconds={"searching": 300.0},
    )


@pytest.mark.parametrize(
    ("searched", "faster", "saved"),
    [(1.8, 2.2, 0.1), (1.8, 1.9, 0.2), (2.0, 2.4, 0.0), (2.2, 2.4, -0.2)],
    ids=["between both", "no more than was measured", "nothing", "worse"],
)
def test_time_is_saved_at_the_uniform_networks_error(searched: float, faster: float, saved: float) -> None:
    assert found(searched, faster).saved == pytest.approx(saved)


def test_what_was_missed_is_said() -> None:
    text = tables(found(1.9, 2.2))
    assert "| Error at the uniform network's time | -5.0 % | -8 % | **missed** |" in text
    assert "| The whole search | 5.0 min | 6 min | met |" in text
    assert "| ... the worst of those | 20.0 % | 5 % | **missed** |" in text
    assert "against 20 patterns by chance | 1.500 : 1.600 | less | met |" in text
