"""A multiprocessing context whose workers start clean.

Workers are forked from a server process of their own, which has no threads and nothing of the caller's in it (where
there is no such server, they are spawned). They never import the caller's ``__main__``: what they run is importable by
itself, and a script without an ``if __name__ == "__main__"`` guard must not run again in every worker.
"""

from __future__ import annotations

import multiprocessing
import os
import signal
import sys
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from multiprocessing import connection, resource_tracker
from types import ModuleType
from typing import Any

_METHOD = "forkserver" if "forkserver" in multiprocessing.get_all_start_methods() else "spawn"
_context: Any = multiprocessing.get_context(_METHOD)


def start_server(preload: Sequence[str] = ()) -> None:
    """Start the server that workers are forked from, so that its imports happen while the caller goes on.

    Parameters
    ----------
    preload
        Modules to import in the server. There is one server for all: what it has imported, it has.
    """
    if _METHOD == "forkserver":
        from multiprocessing import forkserver

        _context.set_forkserver_preload(list(preload))
        with no_main_module(), _no_interrupt():
            forkserver.ensure_running()


def end_with_parent() -> None:
    """Wait until the process that started this one is gone, and end; for a thread of a worker.

    A worker would not notice by itself: it waits for work from a pipe of which it holds the other end, too.
    """
    parent = multiprocessing.parent_process()
    if parent is not None:
        connection.wait([parent.sentinel])
        os._exit(1)


class _CleanProcess(_context.Process):  # type: ignore[misc]
    """A process that is not told where the caller's main module is."""

    def start(self) -> None:
        """Start the process."""
        with no_main_module():
            super().start()


class _CleanContext(type(_context)):  # type: ignore[misc]
    Process = _CleanProcess


def worker_context() -> Any:
    """A context that makes clean workers; which class it is depends on the system."""
    return _CleanContext()


@contextmanager
def _no_interrupt() -> Iterator[None]:
    """Have a process that is started now never see Ctrl-C, which is its parent's to handle."""
    # starting the tracker would let the signal through again
    resource_tracker.ensure_running()
    before = signal.pthread_sigmask(signal.SIG_BLOCK, [signal.SIGINT])
    try:
        yield
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, before)


@contextmanager
def no_main_module() -> Iterator[None]:
    """Hide the caller's main module from multiprocessing, which would have the new process import it."""
    main = sys.modules["__main__"]
    sys.modules["__main__"] = ModuleType("__main__")
    try:
        yield
    finally:
        sys.modules["__main__"] = main
