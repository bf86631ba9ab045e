"""Which cores a process may use, from its affinity and the control groups above it."""

import os
from pathlib import Path

import pytest

from leanface.device import _cpu_quota, describe_device, usable_cores  # pyright: ignore[reportPrivateUsage]


def process(folder: Path, cgroup: str, mounts: str) -> Path:
    """A folder like one of /proc whose control groups are mounted below `folder`."""
    (folder / "proc").mkdir()
    (folder / "proc/cgroup").write_text(cgroup)
    (folder / "proc/mountinfo").write_text(mounts.replace("@", str(folder)))
    return folder / "proc"


def group(folder: Path, **files: str) -> None:
    folder.mkdir(parents=True, exist_ok=True)
    for name, text in files.items():
        (folder / name.replace("__", ".")).write_text(text)


UNIFIED = "30 25 0:26 / @/cg rw,nosuid shared:4 - cgroup2 cgroup2 rw,nsdelegate\n"
LEGACY = (
    "33 25 0:29 / @/cg/mem rw - cgroup cgroup rw,memory\n"
    "34 25 0:30 {root} @/cg/cpu rw shared:9 - cgroup cgroup rw,cpu,cpuacct\n"
)


@pytest.mark.parametrize(("text", "cores"), [("50000 100000\n", 0.5), ("150000 100000\n", 1.5), ("max 100000\n", None)])
def test_the_unified_hierarchy(tmp_path: Path, text: str, cores: float | None) -> None:
    group(tmp_path / "cg/user/job", cpu__max=text)
    assert _cpu_quota(process(tmp_path, "0::/user/job\n", UNIFIED)) == cores


def test_a_parent_s_tighter_limit_binds(tmp_path: Path) -> None:
    group(tmp_path / "cg/user/job", cpu__max="400000 100000\n")
    group(tmp_path / "cg/user", cpu__max="200000 100000\n")
    assert _cpu_quota(process(tmp_path, "0::/user/job\n", UNIFIED)) == 2.0


def test_the_legacy_hierarchy(tmp_path: Path) -> None:
    group(tmp_path / "cg/cpu/job", cpu__cfs_quota_us="300000\n", cpu__cfs_period_us="100000\n")
    mounts = LEGACY.format(root="/")
    assert _cpu_quota(process(tmp_path, "3:memory:/\n2:cpu,cpuacct:/job\n0::/\n", mounts)) == 3.0


def test_a_container_that_does_not_see_the_groups_above_its_own(tmp_path: Path) -> None:
    group(tmp_path / "cg/cpu", cpu__cfs_quota_us="100000\n", cpu__cfs_period_us="50000\n")
    mounts = LEGACY.format(root="/docker/1a2b")
    assert _cpu_quota(process(tmp_path, "2:cpu,cpuacct:/docker/1a2b\n", mounts)) == 2.0


def test_a_legacy_group_without_a_limit(tmp_path: Path) -> None:
    group(tmp_path / "cg/cpu/job", cpu__cfs_quota_us="-1\n", cpu__cfs_period_us="100000\n")
    assert _cpu_quota(process(tmp_path, "2:cpu:/job\n", LEGACY.format(root="/"))) is None


def test_a_system_without_control_groups(tmp_path: Path) -> None:
    assert _cpu_quota(tmp_path / "nothing") is None


@pytest.mark.skipif(not hasattr(os, "sched_setaffinity"), reason="affinity is Linux's")
def test_affinity_decides() -> None:
    before = os.sched_getaffinity(0)
    try:
        os.sched_setaffinity(0, {min(before)})
        assert usable_cores() == 1
        assert describe_device()["cores"] == 1
    finally:
        os.sched_setaffinity(0, before)
