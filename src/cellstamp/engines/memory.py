"""Memory that this process may use."""

from __future__ import annotations

from pathlib import Path

import psutil


def memory_limit(proc: Path = Path("/proc/self/cgroup"), mount: Path = Path("/sys/fs/cgroup")) -> int:
    """Return the bytes that this process may use: the lowest cgroup limit (v1 or v2), else the physical memory.

    Parameters
    ----------
    proc
        List of the cgroups of this process.
    mount
        Where the cgroup file systems are mounted.
    """
    limits = [limit for folder, name in _limit_files(proc, mount) if (limit := _read_limit(folder / name)) is not None]
    physical: int = psutil.virtual_memory().total
    return min([physical, *limits])


def _limit_files(proc: Path, mount: Path) -> list[tuple[Path, str]]:
    """Return folder and file name of each limit, from the process's cgroup up to the root."""
    files: list[tuple[Path, str]] = []
    try:
        lines = proc.read_text().splitlines()
    except OSError:
        return files
    for line in lines:
        _, controllers, group = line.split(":", 2)
        if controllers == "":
            root, name = mount, "memory.max"
        elif "memory" in controllers.split(","):
            root, name = mount / "memory", "memory.limit_in_bytes"
        else:
            continue
        own = root / group.lstrip("/")
        files += [(folder, name) for folder in (own, *own.parents) if folder == root or root in folder.parents]
    return files


def _read_limit(file: Path) -> int | None:
    try:
        text = file.read_text().strip()
    except OSError:
        return None
    return int(text) if text.isdigit() else None


def memory_budget(share: float, limit: int | None = None) -> int:
    """Return the bytes that a run may use: a share of ``limit``, by default of `memory_limit`."""
    return int(share * (memory_limit() if limit is None else limit))
