"""Find the limits of the cgroups (v1 or v2) of this process. Systems other than Linux have none."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

PROC = Path("/proc/self/cgroup")
"""List of the cgroups of this process."""
MOUNT = Path("/sys/fs/cgroup")
"""Mount point of the cgroup file systems."""


def limit_files(
    controller: str, v1: tuple[str, ...], v2: tuple[str, ...], proc: Path = PROC, mount: Path = MOUNT
) -> Iterator[str]:
    """Yield the content of the files with the limit of each cgroup, from that of this process up to the root.

    Parameters
    ----------
    controller
        ``"cpu"`` or ``"memory"``.
    v1, v2
        Names of the files in each version; their content is joined with a space.
    proc, mount
        The list of cgroups, and the mount point.
    """
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
