"""Bring a growing file to the disk in the background, so that closing it is fast."""

from __future__ import annotations

import threading
from collections.abc import Callable


class Writeback:
    """Bring a file to the disk in a background thread, whenever `begin` is called.

    Parameters
    ----------
    commit
        Brings the file to the disk; may raise `OSError`. The file must stay open until `stop`. It is not called twice
        at the same time.
    """

    def __init__(self, commit: Callable[[], None]) -> None:
        self._commit, self._turn = commit, threading.Lock()
        self._news = threading.Event()
        self._stopped = False
        self._error: OSError | None = None
        self._thread = threading.Thread(target=self._run, name="cellstamp-writeback", daemon=True)
        self._thread.start()

    def begin(self) -> None:
        """Start bringing the file to the disk, without waiting."""
        self._news.set()

    def finish(self) -> None:
        """Bring the file to the disk now.

        Raises
        ------
        OSError
            If this failed, now or in the thread. The system reports this only once.
        """
        with self._turn:
            self._commit()
        if self._error is not None:
            raise self._error

    def stop(self) -> None:
        """Stop the thread; then the file may be closed."""
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
                with self._turn:
                    self._commit()
            except OSError as error:
                self._error = error
