"""One run a folder: a lock, and who holds it."""

from __future__ import annotations

import json
import os
import socket
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from datetime import datetime
from pathlib import Path

from filelock import BaseFileLock, FileLock, SoftFileLock, Timeout

from cellstamp.errors import OutputError


@contextmanager
def holding(path: Path, *, what: Path) -> Iterator[None]:
    """Hold a lock while the block runs. The system lets go of it when this process ends, however it does.

    Parameters
    ----------
    path
        The lock.
    what
        The folder that nobody else may write meanwhile.

    Raises
    ------
    OutputError
        If another run holds it; the message says which.
    """
    about = path.with_suffix(".holder")
    lock = _acquire(path, about, what)
    try:
        # it is for others to read; a full disk is told where it matters
        with suppress(OSError):
            about.write_text(json.dumps(_myself()), encoding="utf-8")
        yield
    finally:
        # before it is released: nobody may take a lock that is about to go
        about.unlink(missing_ok=True)
        path.unlink(missing_ok=True)
        lock.release()


def _acquire(path: Path, about: Path, what: Path) -> BaseFileLock:
    try:
        try:
            return _acquired(FileLock(path, blocking=False))
        except NotImplementedError:
            # a network file system without locks: a file that is there or not has to do
            return _acquired(SoftFileLock(path.with_suffix(".softlock"), blocking=False))
    except Timeout as error:
        message = (
            f"another run is writing {what}: {_holder(about)} (it holds {path}). Wait until it has ended, or stop it"
        )
        raise OutputError(message) from error
    except OSError as error:
        message = f"{what.parent}: nothing can be written there: {error.strerror}. Give another directory, or mend it"
        raise OutputError(message) from error


def _acquired(lock: BaseFileLock) -> BaseFileLock:
    lock.acquire()
    return lock


def _myself() -> dict[str, str | int]:
    now = datetime.now().astimezone().isoformat(sep=" ", timespec="seconds")
    return {"host": socket.gethostname(), "pid": os.getpid(), "since": now}


def _holder(about: Path) -> str:
    try:
        holder = json.loads(about.read_text(encoding="utf-8"))
        return f"process {holder['pid']} on {holder['host']}, since {holder['since']}"
    except (OSError, ValueError, KeyError, TypeError):
        return "a process that has only begun"
