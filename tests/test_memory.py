"""The memory a process may really use, by made-up cgroup file systems."""

from __future__ import annotations

from pathlib import Path

import psutil
import pytest

from cellstamp.engines.memory import memory_budget, memory_limit

pytestmark = pytest.mark.once

PHYSICAL = psutil.virtual_memory().total
GIB = 2**30


class Cgroups:
    """A made-up ``/sys/fs/cgroup`` and ``/proc/self/cgroup``."""

    def __init__(self, folder: Path) -> None:
        self.mount = folder / "cgroup"
        self.proc = folder / "self"
        self.mount.mkdir()

    def limit(self, group: str, name: str, text: str | int) -> None:
        folder = self.mount / group
        folder.mkdir(parents=True, exist_ok=True)
        (folder / name).write_text(f"{text}\n")

    def read(self, *lines: str) -> int:
        self.proc.write_text("".join(f"{line}\n" for line in lines))
        return memory_limit(self.proc, self.mount)


@pytest.fixture
def cgroups(tmp_path: Path) -> Cgroups:
    return Cgroups(tmp_path)


def test_v2_limit_of_the_own_group(cgroups: Cgroups) -> None:
    cgroups.limit("user.slice/job", "memory.max", GIB)
    assert cgroups.read("0::/user.slice/job") == GIB


@pytest.mark.parametrize(("outer", "inner"), [(GIB, 2 * GIB), (2 * GIB, GIB), ("max", GIB), (GIB, "max")])
def test_v2_the_tightest_limit_above_counts(cgroups: Cgroups, outer: int | str, inner: int | str) -> None:
    cgroups.limit("slurm", "memory.max", outer)
    cgroups.limit("slurm/job/step", "memory.max", inner)
    assert cgroups.read("0::/slurm/job/step") == GIB


def test_v2_in_a_container_its_own_root_counts(cgroups: Cgroups) -> None:
    cgroups.limit(".", "memory.max", GIB)
    assert cgroups.read("0::/") == GIB


def test_v2_in_a_container_that_is_told_the_hosts_path(cgroups: Cgroups) -> None:
    cgroups.limit(".", "memory.max", GIB)
    assert cgroups.read("0::/docker/0123abcd") == GIB


def test_v2_no_limit(cgroups: Cgroups) -> None:
    cgroups.limit("a", "memory.max", "max")
    assert cgroups.read("0::/a") == PHYSICAL


def test_v1_limit(cgroups: Cgroups) -> None:
    cgroups.limit("memory/docker/abc", "memory.limit_in_bytes", GIB)
    cgroups.limit("memory/other", "memory.limit_in_bytes", GIB // 2)  # we are there for other controllers only
    assert cgroups.read("11:cpu,cpuacct:/other", "9:hugetlb,memory:/docker/abc", "1:name=systemd:/other") == GIB


def test_v1_nested_and_hybrid(cgroups: Cgroups) -> None:
    cgroups.limit("memory/slurm", "memory.limit_in_bytes", GIB)
    cgroups.limit("memory/slurm/job", "memory.limit_in_bytes", 2 * GIB)
    cgroups.limit("unified", "memory.max", "max")
    assert cgroups.read("4:memory:/slurm/job", "0::/unified") == GIB


def test_v1_in_a_container_that_is_told_the_hosts_path(cgroups: Cgroups) -> None:
    cgroups.limit("memory", "memory.limit_in_bytes", GIB)
    assert cgroups.read("4:memory:/docker/0123abcd") == GIB


def test_v1_no_limit_is_a_very_large_number(cgroups: Cgroups) -> None:
    cgroups.limit("memory", "memory.limit_in_bytes", 9223372036854771712)
    assert cgroups.read("4:memory:/") == PHYSICAL


def test_missing_or_unreadable_files_mean_no_limit(cgroups: Cgroups) -> None:
    assert cgroups.read("0::/nowhere", "4:memory:/nowhere") == PHYSICAL
    cgroups.limit("odd", "memory.max", "a lot")
    assert cgroups.read("0::/odd") == PHYSICAL
    assert cgroups.read() == PHYSICAL
    assert memory_limit(cgroups.proc.with_name("none"), cgroups.mount) == PHYSICAL


def test_a_limit_outside_the_own_groups_does_not_count(cgroups: Cgroups) -> None:
    cgroups.limit("other", "memory.max", GIB)
    (cgroups.mount.parent / "memory.max").write_text("1\n")  # above the mount
    assert cgroups.read("0::/mine") == PHYSICAL


def test_of_this_process() -> None:
    assert 0 < memory_limit() <= PHYSICAL


def test_the_budget_is_a_share_of_the_limit() -> None:
    assert memory_budget(0.5, limit=1000) == 500
    assert memory_budget(1, limit=1001) == 1001
    assert memory_budget(0.85) == int(0.85 * memory_limit())
