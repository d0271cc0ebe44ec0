"""Raise the limit on open files while workers run, since each worker needs some."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from contextlib import contextmanager
from importlib import import_module
from typing import Any

import psutil

from cellstamp.errors import ConfigError

try:
    _resource: Any = import_module("resource")
except ImportError:  # Windows has no such limit
    _resource = None

_RESERVE = 32
"""Open files that a run needs besides those of its workers."""
_PLENTY = 10_240
"""Allowed on every system; a soft limit of a million slows programs that close all descriptors one by one."""


class OpenFiles:
    """The soft limit on open files, raised to the hard limit while workers run; thread-safe."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._n_users = 0
        self._before = self._raised = 0

    @contextmanager
    def room_for(self, n_workers: int, per_worker: int) -> Iterator[None]:
        """Raise the limit for the files of workers; the last user restores it.

        Parameters
        ----------
        n_workers
            Number of workers to start.
        per_worker
            Open files that each worker needs in this process.

        Raises
        ------
        ConfigError
            The hard limit is too low for ``n_workers``. The message names a number that fits.
        """
        if _resource is None:
            yield
            return
        with self._lock:
            if not self._n_users:
                self._before, self._raised = _raise_limit()
            self._n_users += 1
        try:
            _check(n_workers, per_worker)
            yield
        finally:
            with self._lock:
                self._n_users -= 1
                if not self._n_users:
                    _restore_limit(self._before, self._raised)


def _raise_limit() -> tuple[int, int]:
    """Raise the soft limit, and return the old and the new one."""
    soft, hard = _resource.getrlimit(_resource.RLIMIT_NOFILE)
    raised = max(soft, min(hard, _PLENTY)) if _is_limit(hard) else max(soft, _PLENTY)
    if not _is_limit(soft) or raised == soft:
        return soft, soft
    _resource.setrlimit(_resource.RLIMIT_NOFILE, (raised, hard))
    return soft, raised


def _restore_limit(before: int, raised: int) -> None:
    soft, hard = _resource.getrlimit(_resource.RLIMIT_NOFILE)
    if soft == raised != before:  # otherwise other code has changed it
        _resource.setrlimit(_resource.RLIMIT_NOFILE, (before, hard))


def _check(n_workers: int, per_worker: int) -> None:
    soft, _ = _resource.getrlimit(_resource.RLIMIT_NOFILE)
    n_open = psutil.Process().num_fds()
    fitting = (soft - n_open - _RESERVE) // per_worker
    if _is_limit(soft) and n_workers > fitting:
        raise ConfigError(
            f"threads = {n_workers}: workers need {n_workers * per_worker} open files, but this process may have "
            f"only {soft} open (ulimit -Hn) and has {n_open} already. Set threads to {max(1, fitting)}, or raise the "
            "limit"
        )


def _is_limit(number: int) -> bool:
    return bool(number != _resource.RLIM_INFINITY)


OPEN_FILES = OpenFiles()
"""Shared by all threads, since a process has one limit."""
