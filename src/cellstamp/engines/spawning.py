"""Start each worker as a new interpreter: this works on every system.

A worker imports its modules itself, which takes it about a second. So a run starts all workers at the same time.
"""

from __future__ import annotations

import time
from collections.abc import Sequence
from multiprocessing.connection import Connection
from typing import Any

from cellstamp.engines.connected import ConnectedPython
from cellstamp.engines.result_memory import ResultMemory
from cellstamp.system import kill_first


class SpawnedChild:
    """A worker in a new interpreter; see `cellstamp.engines.start_methods.Child`.

    Parameters
    ----------
    preload
        Modules that it needs.

    Raises
    ------
    WorkerError
        The system refuses to start a process.
    """

    def __init__(self, preload: Sequence[str]) -> None:
        self.memory = ResultMemory.with_name()
        path = None if self.memory.path is None else str(self.memory.path)
        try:
            self._python = ConnectedPython("cellstamp.engines.spawned_worker", tuple(preload), path)
        except BaseException:
            self.memory.close()
            raise
        # not by the worker itself: while it imports its modules, memory of the worker that it replaces may not be free
        kill_first(self._python.process.pid)

    @property
    def connection(self) -> Connection[Any, Any]:
        """Connection to the worker; waits until it has connected."""
        return self._python.connection

    @property
    def exit_code(self) -> int | None:
        """Exit code, or the negative number of a signal; None while it runs."""
        return self._python.process.returncode

    def kill(self) -> None:
        """Kill the worker, unless it has ended."""
        self._python.process.kill()

    def wait(self, deadline: float) -> None:
        """Wait for the worker, kill it at the deadline, and close connection and memory."""
        self._python.wait(deadline - time.monotonic())
        self.memory.close()
