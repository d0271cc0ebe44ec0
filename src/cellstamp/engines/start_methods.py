"""How worker processes start: forked from a server (Linux), or each as a new interpreter (every system)."""

from __future__ import annotations

import os
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from multiprocessing.connection import Connection
from typing import Any, Protocol

from cellstamp.engines import connected, forking, spawning
from cellstamp.engines.result_memory import ResultMemory
from cellstamp.errors import ConfigError

_VARIABLE = "CELLSTAMP_START_METHOD"
"""Environment variable that chooses a start method: for tests and error reports."""


class Child(Protocol):
    """A worker process."""

    @property
    def memory(self) -> ResultMemory:
        """Memory for its results."""
        ...

    @property
    def connection(self) -> Connection[Any, Any]:
        """Connection to the worker; it ends when the worker does. May wait until the worker runs.

        Raises
        ------
        WorkerError
            The worker doesn't start.
        """
        ...

    @property
    def exit_code(self) -> int | None:
        """After its end: the exit code, the negative number of a signal, or None if unknown."""
        ...

    def kill(self) -> None:
        """Kill the worker, unless it has ended."""
        ...

    def wait(self, deadline: float) -> None:
        """Wait for the worker, kill it at the deadline (of `time.monotonic`), and close its connection and memory."""
        ...


@dataclass(frozen=True)
class StartMethod:
    """A way to start workers.

    Attributes
    ----------
    prepare
        Called with the modules that workers need, some time before they start.
    start
        Starts a worker, with the modules that it needs. It returns before the worker runs.
    n_files
        Open files that each worker needs in this process.
    most_workers
        Largest number of workers that this process can wait for; None without a limit.
    """

    prepare: Callable[[Sequence[str]], object]
    start: Callable[[Sequence[str]], Child]
    n_files: int
    most_workers: int | None = None


_N_FILES = 6
"""A worker's connection, and the memory for its results with four slots, which stay mapped."""
METHODS = {
    "fork": StartMethod(forking.running_server, forking.ForkedChild, _N_FILES),
    "spawn": StartMethod(lambda preload: None, spawning.SpawnedChild, _N_FILES, connected.MOST_CONNECTIONS),
}
"""Start methods by name."""


def available_methods() -> tuple[str, ...]:
    """Return the names of this system's start methods, the fastest first.

    Processes are forked only on Linux: the libraries of macOS don't work in forks, and Windows has none.
    """
    can_fork = hasattr(os, "fork") and hasattr(os, "memfd_create")
    return ("fork", "spawn") if can_fork else ("spawn",)


def find_method(name: str | None) -> StartMethod:
    """Return a start method by name; None is that of the environment or the system.

    Raises
    ------
    ConfigError
        This system has no such method.
    """
    available = available_methods()
    chosen = name or os.environ.get(_VARIABLE) or available[0]
    if chosen not in available:
        allowed = " or ".join(available)
        raise ConfigError(
            f"{_VARIABLE} = {chosen!r}: must be {allowed} on this system. Unset it to use the fastest one"
        )
    return METHODS[chosen]
