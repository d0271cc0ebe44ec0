"""How many worker processes this machine allows: cores of this process, and memory for idle workers."""

from __future__ import annotations

from pathlib import Path

from cellstamp.engines.cgroups import MOUNT, PROC, core_quotas
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
    """Return the cores this process may use, at least 1: CPU affinity, and the tightest cgroup quota.

    Parameters are those of `cellstamp.engines.cgroups.core_quotas`.
    """
    return max(1, min([usable_cores(), *core_quotas(proc, mount)]))
