"""How many worker processes this machine allows: cores of this process, and memory for idle workers."""

from __future__ import annotations

from pathlib import Path

from cellstamp.engines.memory import memory_budget
from cellstamp.engines.threads import usable_cores

WORKER_BYTES = 200 * 2**20
"""Resident memory of an idle worker that has imported everything it needs."""


def default_workers(share: float = 0.85) -> int:
    """Return how many workers to start: one per usable core, if they and this process fit into the memory.

    Parameters
    ----------
    share
        Share of the memory that may be used.
    """
    affordable = memory_budget(share) // WORKER_BYTES - 1
    return max(1, min(quota_cores(), affordable))


def quota_cores(proc: Path = Path("/proc/self/cgroup"), mount: Path = Path("/sys/fs/cgroup")) -> int:
    """Return the cores this process may use: CPU affinity, and the tightest cgroup quota (v1 or v2), rounded down.

    Parameters
    ----------
    proc
        List of the cgroups of this process.
    mount
        Mount point of the cgroup file systems.

    Returns
    -------
    int
        At least 1.
    """
    return max(1, min([usable_cores(), *_quotas(proc, mount)]))


def _quotas(proc: Path, mount: Path) -> list[int]:
    """Return the quota, in complete cores, of each cgroup that has one, from the root to the one of this process."""
    try:
        lines = proc.read_text().splitlines()
    except OSError:
        return []
    quotas = []
    for line in lines:
        _, controllers, group = line.split(":", 2)
        if controllers and "cpu" not in controllers.split(","):
            continue
        # v1 mounts the controller below a folder with its name
        root = mount / "cpu" if controllers else mount
        own = root / group.lstrip("/")
        # in a container, only the root exists here
        folders = [folder for folder in (own, *own.parents) if folder == root or root in folder.parents]
        quotas += [quota for folder in folders if (quota := _quota(folder, is_v1=bool(controllers))) is not None]
    return quotas


def _quota(folder: Path, *, is_v1: bool) -> int | None:
    """Return quota // period of a cgroup; None without a limit."""
    names = ("cpu.cfs_quota_us", "cpu.cfs_period_us") if is_v1 else ("cpu.max",)
    try:
        quota, period, *_ = " ".join((folder / name).read_text() for name in names).split()
        return int(quota) // int(period) if int(quota) > 0 else None
    except (OSError, ValueError, ZeroDivisionError):  # no such file, or "max"
        return None
