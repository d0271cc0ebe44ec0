"""Memory that this process may use."""

from __future__ import annotations

from pathlib import Path

import psutil

from cellstamp.engines.cgroups import MOUNT, PROC, memory_limits


def memory_limit(proc: Path = PROC, mount: Path = MOUNT) -> int:
    """Return the bytes that this process may use: the lowest cgroup limit, else the physical memory.

    Parameters are those of `cellstamp.engines.cgroups.memory_limits`.
    """
    physical: int = psutil.virtual_memory().total
    return min([physical, *memory_limits(proc, mount)])


def memory_budget(share: float, limit: int | None = None) -> int:
    """Return the bytes that a run may use: a share of ``limit``, by default of `memory_limit`."""
    return int(share * (memory_limit() if limit is None else limit))
