"""Has a growing file written to the disk while it grows, so that nobody has to wait for much of it at the end."""

from __future__ import annotations

import os
import threading
from collections.abc import Callable
from pathlib import Path


def sync(path: Path) -> None:
    """Bring a file to the disk, or the names in a folder."""
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


class Writeback:
    """Brings a file to the disk in a thread of its own, over and over, as long as there is something new in it.

    Parameters
    ----------
    commit
        Does it; may raise `OSError`. The file must stay open until `stop`.
    """

    def __init__(self, commit: Callable[[], None]) -> None:
        self._commit = commit
        self._news = threading.Event()
        self._stopped = False
        self._error: OSError | None = None
        self._thread = threading.Thread(target=self._run, name="cellstamp-writeback", daemon=True)
        self._thread.start()

    def begin(self) -> None:
        """Have what was written so far brought to the disk, and do not wait for it."""
        self._news.set()

    def check(self) -> None:
        """Raise what went wrong meanwhile.

        Raises
        ------
        OSError
            If something could not be brought to the disk: the system tells of it only once.
        """
        if self._error is not None:
            raise self._error

    def stop(self) -> None:
        """End the thread; the file may be closed then."""
        self._stopped = True
        self._news.set()
        self._thread.join()

    def _run(self) -> None:
        while self._error is None:
            self._news.wait()
            self._news.clear()
            if self._stopped:
                return
            try:
                self._commit()
            except OSError as error:
                self._error = error
