"""Lock a folder, so that one run at a time writes to it."""

from __future__ import annotations

import json
import os
import socket
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from datetime import datetime
from pathlib import Path

from filelock import BaseFileLock, Timeout

from cellstamp.errors import OutputError
from cellstamp.system import acquire_lock, release_and_remove


@contextmanager
def holding(path: Path, *, what: Path) -> Iterator[None]:
    """Hold a lock while the block runs. The system releases it when this process ends, also after a crash.

    Parameters
    ----------
    path
        Lock file.
    what
        Folder that the lock protects.

    Raises
    ------
    OutputError
        If another run holds it; the message names its process.
    """
    about = path.with_suffix(".holder")
    lock = _acquire(path, about, what)
    try:
        # only for messages; a full disk is reported where results are written
        with suppress(OSError):
            about.write_text(json.dumps(_myself()), encoding="utf-8")
        yield
    finally:
        # before the release: another run writes its own
        about.unlink(missing_ok=True)
        release_and_remove(lock, path)


def _acquire(path: Path, about: Path, what: Path) -> BaseFileLock:
    try:
        return acquire_lock(path)
    except Timeout as error:
        message = (
            f"another run is writing {what}: {_holder(about)} (it holds {path}). Wait until it has ended, or stop it"
        )
        raise OutputError(message) from error
    except OSError as error:
        message = f"{what.parent}: cannot write to this folder: {error.strerror}. Repair it, or give another directory"
        raise OutputError(message) from error


def _myself() -> dict[str, str | int]:
    now = datetime.now().astimezone().isoformat(sep=" ", timespec="seconds")
    return {"host": socket.gethostname(), "pid": os.getpid(), "since": now}


def _holder(about: Path) -> str:
    try:
        holder = json.loads(about.read_text(encoding="utf-8"))
        return f"process {holder['pid']} on {holder['host']}, since {holder['since']}"
    except (OSError, ValueError, KeyError, TypeError):
        return "a process that has just started"
