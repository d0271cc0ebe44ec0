"""Read the limits of memory and cores of this process's cgroups (v1 or v2). Only Linux has cgroups."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

PROC = Path("/proc/self/cgroup")
"""List of the cgroups of this process."""
MOUNT = Path("/sys/fs/cgroup")
"""Mount point of the cgroup file systems."""


def memory_limits(proc: Path = PROC, mount: Path = MOUNT) -> list[int]:
    """Return the memory limit of each cgroup of this process that has one, in bytes.

    Parameters
    ----------
    proc
        List of the cgroups of this process.
    mount
        Mount point of the cgroup file systems.
    """
    texts = _limit_files("memory", ("memory.limit_in_bytes",), ("memory.max",), proc, mount)
    return [int(text) for text in texts if text.strip().isdigit()]  # "max": without a limit


def core_quotas(proc: Path = PROC, mount: Path = MOUNT) -> list[int]:
    """Return the CPU quota of each cgroup of this process that has one, in cores, rounded down.

    Parameters are those of `memory_limits`.
    """
    texts = _limit_files("cpu", ("cpu.cfs_quota_us", "cpu.cfs_period_us"), ("cpu.max",), proc, mount)
    return [quota for text in texts if (quota := _quota(text)) is not None]


def _quota(text: str) -> int | None:
    """Return quota // period, in complete cores; None without a limit."""
    try:
        quota, period, *_ = text.split()
        return int(quota) // int(period) if int(quota) > 0 else None
    except (ValueError, ZeroDivisionError):  # "max": without a limit
        return None


def _limit_files(controller: str, v1: tuple[str, ...], v2: tuple[str, ...], proc: Path, mount: Path) -> Iterator[str]:
    """Yield the limit of each cgroup from that of this process up to the root: files of each version, joined."""
    for root, group, names in _groups(controller, v1, v2, proc, mount):
        own = root / group.lstrip("/")
        # in a container, only the root exists here
        for folder in (own, *own.parents):
            if folder == root or root in folder.parents:
                try:
                    yield " ".join((folder / name).read_text() for name in names)
                except OSError:
                    continue


def _groups(
    controller: str, v1: tuple[str, ...], v2: tuple[str, ...], proc: Path, mount: Path
) -> Iterator[tuple[Path, str, tuple[str, ...]]]:
    """Yield root folder, group and file names of each hierarchy with this controller."""
    try:
        lines = proc.read_text().splitlines()
    except OSError:
        return
    for line in lines:
        _, controllers, group = line.split(":", 2)
        if not controllers:
            yield mount, group, v2
        elif controller in controllers.split(","):
            # v1 mounts the controller below a folder with its name
            yield mount / controller, group, v1
