"""Temporary folders in ``cache``: each records the process that made it, so that later runs can remove leftovers."""

from __future__ import annotations

import json
import os
import shutil
import socket
import tempfile
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path

from cellstamp.system import is_running, process_start

RECORD = ".cellstamp-owner.json"
"""File in a temporary folder that names the process it belongs to."""


def new_temporary_folder(cache: Path, prefix: str) -> Path:
    """Make a folder in ``cache`` that belongs to this process.

    Raises
    ------
    OSError
        If nothing can be made there.
    """
    folder = Path(tempfile.mkdtemp(prefix=prefix, dir=cache))
    owner = {"folder": folder.name, "pid": os.getpid(), "started": process_start(os.getpid()), **_host()}
    # on a full disk the folder is still usable, and the run reports the disk where it writes its results
    with suppress(OSError):
        (folder / RECORD).write_text(json.dumps(owner), encoding="utf-8")
    return folder


def keep(folder: Path) -> None:
    """Turn a temporary folder into an ordinary one, which no later run removes."""
    (folder / RECORD).unlink(missing_ok=True)


def remove_abandoned(cache: Path) -> Iterator[Path]:
    """Remove the temporary folders in ``cache`` whose process has ended without removing them.

    A folder stays when its process runs, when another host (or another container) made it, and when it has no record:
    then it is not known to be ours.

    Yields
    ------
    pathlib.Path
        Each folder that was removed.
    """
    for record in cache.glob(f"*/{RECORD}"):
        folder = record.parent
        if not folder.is_symlink() and _is_abandoned(record):
            shutil.rmtree(folder, ignore_errors=True)
            if not folder.exists():
                yield folder


def _is_abandoned(record: Path) -> bool:
    try:
        owner = json.loads(record.read_text(encoding="utf-8"))
        # a copy that somebody made under another name is not a temporary folder
        of_this_folder = owner["folder"] == record.parent.name
        here = all(owner[key] == value for key, value in _host().items())
        return of_this_folder and here and not is_running(int(owner["pid"]), str(owner["started"]))
    except (OSError, ValueError, KeyError, TypeError, OverflowError):
        return False


def _host() -> dict[str, str]:
    """Identify where a process id has a meaning: the host (names repeat) and, on Linux, the container."""
    machine = container = ""
    with suppress(OSError):
        machine = Path("/etc/machine-id").read_text(encoding="ascii").strip()
    with suppress(OSError):
        container = str(Path("/proc/self/ns/pid").readlink())
    return {"host": socket.gethostname(), "machine": machine, "container": container}
