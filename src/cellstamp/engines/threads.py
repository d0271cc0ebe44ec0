"""Share work among threads of one process, for functions that release the GIL."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from typing import TypeVar

import psutil

T = TypeVar("T")
R = TypeVar("R")


def usable_cores() -> int:
    """Return the number of cores that this process may use."""
    if hasattr(os, "sched_getaffinity"):
        return len(os.sched_getaffinity(0))
    process = psutil.Process()
    # Windows can restrict a process to some cores, macOS cannot
    return len(process.cpu_affinity()) if hasattr(process, "cpu_affinity") else os.cpu_count() or 1


class Threads:
    """Threads that start when needed; picklable, and safe when the process forks.

    Parameters
    ----------
    n_threads
        Number of threads; 1 uses the calling thread.
    """

    def __init__(self, n_threads: int) -> None:
        self.n_threads = n_threads
        self._pool: ThreadPoolExecutor | None = None
        self._pid = 0

    def __reduce__(self) -> tuple[type[Threads], tuple[int]]:
        """Pickle the number of threads only."""
        return type(self), (self.n_threads,)

    def each(self, function: Callable[[T], object], items: list[T]) -> None:
        """Call a function with every item; after all calls, raise the first error."""
        if self.n_threads == 1 or len(items) <= 1:
            for item in items:
                function(item)
            return
        calls = [self._threads().submit(function, item) for item in items]
        errors = [error for error in (call.exception() for call in calls) if error is not None]
        if errors:
            raise errors[0]

    def _threads(self) -> ThreadPoolExecutor:
        # a forked process has no threads, and its pool would wait for them
        if self._pool is None or self._pid != os.getpid():
            self._pool, self._pid = ThreadPoolExecutor(self.n_threads, "cellstamp"), os.getpid()
        return self._pool


def one_ahead(function: Callable[[T], R], items: Iterable[T]) -> Iterator[R]:
    """Yield the results of a function for each item, computing one result ahead in a thread."""
    with ThreadPoolExecutor(1, "cellstamp-ahead") as pool:
        waiting: Future[R] | None = None
        for item in items:
            following = pool.submit(function, item)
            if waiting is not None:
                yield waiting.result()
            waiting = following
        if waiting is not None:
            yield waiting.result()
