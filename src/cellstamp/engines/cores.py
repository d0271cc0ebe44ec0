"""How many worker processes this machine allows: cores of this process, and memory for idle workers."""

from __future__ import annotations

from pathlib import Path

from cellstamp.engines.cgroups import MOUNT, PROC, limit_files
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


def quota_cores(proc: Path = PROC, mount: Path = MOUNT) -> int:
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
    texts = limit_files("cpu", ("cpu.cfs_quota_us", "cpu.cfs_period_us"), ("cpu.max",), proc, mount)
    quotas = [quota for text in texts if (quota := _quota(text)) is not None]
    return max(1, min([usable_cores(), *quotas]))


def _quota(text: str) -> int | None:
    """Return quota // period, in complete cores; None without a limit."""
    try:
        quota, period, *_ = text.split()
        return int(quota) // int(period) if int(quota) > 0 else None
    except (ValueError, ZeroDivisionError):  # "max": without a limit
        return None
