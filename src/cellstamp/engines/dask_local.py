"""A dask cluster of this machine, in a process of ours.

A `LocalCluster` starts workers with ``multiprocessing``, which imports the main module of the process that it is in: a
script without a guard would run again. From a daemonic process it cannot start any. So it gets a process that has
nothing in it, and which ends when the caller's does.
"""

from __future__ import annotations

import os
import signal
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from multiprocessing.connection import Connection
from typing import Any

from cellstamp.engines.interpreter import start_python, take_standard_input
from cellstamp.errors import WorkerError

_PATIENCE = 10.0
"""Seconds that a cluster has to end before it is killed."""


@contextmanager
def local_cluster(n_workers: int, worker_bytes: int) -> Iterator[str]:
    """Start a scheduler and workers, and return the scheduler's address; they end with the context.

    Parameters
    ----------
    n_workers, worker_bytes
        How many workers, each with one thread, and the memory that each may use.

    Raises
    ------
    WorkerError
        If they cannot be started.
    """
    import dask

    process, control = start_python("cellstamp.engines.dask_local")
    with _ending(process), Connection(control.detach()) as cluster:
        try:
            cluster.send((n_workers, worker_bytes, dask.config.config))
            address: str = cluster.recv()
        except (EOFError, OSError) as error:
            message = "the dask cluster of this machine did not start. What it wrote to the standard error may say why"
            raise WorkerError(message) from error
        yield address


@contextmanager
def _ending(process: subprocess.Popen[Any]) -> Iterator[None]:
    """Wait for a process at the end."""
    try:
        yield
    finally:
        try:
            with suppress(subprocess.TimeoutExpired):
                process.wait(_PATIENCE)
        finally:
            process.kill()
            process.wait()


def main() -> None:
    """Have a cluster until the process at the other end of the standard input closes it."""
    caller: Connection[Any, Any] = Connection(take_standard_input().detach())
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    n_workers, worker_bytes, config = caller.recv()

    import dask
    from distributed import LocalCluster

    dask.config.update(dask.config.config, config)
    with LocalCluster(
        n_workers=n_workers,
        threads_per_worker=1,
        processes=True,
        memory_limit=worker_bytes,
        dashboard_address=":0",
    ) as cluster:
        caller.send(cluster.scheduler_address)
        with suppress(EOFError, ConnectionError):
            caller.recv()
    os._exit(0)
