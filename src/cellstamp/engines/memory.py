"""Memory that this process may use."""

from __future__ import annotations

from pathlib import Path

import psutil

from cellstamp.engines.cgroups import MOUNT, PROC, limit_files


def memory_limit(proc: Path = PROC, mount: Path = MOUNT) -> int:
    """Return the bytes that this process may use: the lowest cgroup limit (v1 or v2), else the physical memory.

    Parameters
    ----------
    proc
        List of the cgroups of this process.
    mount
        Mount point of the cgroup file systems.
    """
    texts = limit_files("memory", ("memory.limit_in_bytes",), ("memory.max",), proc, mount)
    limits = [int(text) for text in texts if text.strip().isdigit()]
    physical: int = psutil.virtual_memory().total
    return min([physical, *limits])


def memory_budget(share: float, limit: int | None = None) -> int:
    """Return the bytes that a run may use: a share of ``limit``, by default of `memory_limit`."""
    return int(share * (memory_limit() if limit is None else limit))
