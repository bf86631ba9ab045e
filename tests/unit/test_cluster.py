"""What fits on a cluster's machines, and what is said if nothing does."""

from pathlib import Path

import pytest

from leanface.batch.command import run
from leanface.cluster import Machine, room
from leanface.errors import ConfigError
from leanface.reconstruction.outputs import Settings

LARGE, SMALL, HEAD = Machine("a", "10.0.0.1", 8, 2), Machine("b", "10.0.0.2", 2, 0), Machine("c", "10.0.0.3", 0, 0)


@pytest.mark.parametrize(
    ("cpus", "gpus", "count"), [(1, 0, 10), (2, 0, 5), (3, 0, 2), (1, 1, 2), (1, 0.5, 4), (5, 1, 1)]
)
def test_no_task_is_divided_among_machines(cpus: int, gpus: float, count: int) -> None:
    assert room([LARGE, SMALL, HEAD], "a task", cpus, gpus) == count


def test_a_task_that_fits_nowhere_is_told_what_there_is() -> None:
    with pytest.raises(
        ConfigError, match=r"a task takes 4 CPUs and 0.5 GPUs, but no machine has that: 2 CPUs and 0 GPUs"
    ):
        room([SMALL], "a task", 4, 0.5)
    with pytest.raises(ConfigError, match="no machine has that"):
        room([HEAD], "a task", 1, 0)


def test_a_cluster_that_is_away_is_named_at_once_and_nothing_is_left(tmp_path: Path) -> None:
    pytest.importorskip("ray", reason="Ray is not installed")
    photos, out = tmp_path / "photos", tmp_path / "out"
    photos.mkdir()
    (photos / "me.jpg").write_bytes(b"not read")
    with pytest.raises(ConfigError, match=r"no Ray cluster answers at ray://127\.0\.0\.1:1 \(.*refused\); nothing"):
        run([str(photos)], str(out), Settings(), cluster="ray://127.0.0.1:1")
    assert not out.exists()
