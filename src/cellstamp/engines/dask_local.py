"""Start a dask cluster on this machine, in a separate process.

A `LocalCluster` starts workers with ``multiprocessing``, which imports the caller's main module: a script without a
guard would run twice. It also fails in a daemonic process. So it runs in an empty process that ends with the caller's.
"""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager, suppress

from cellstamp.engines.connected import ConnectedPython, connect_to_caller
from cellstamp.errors import WorkerError

_PATIENCE = 10.0
"""Seconds until a cluster that doesn't end is killed."""


@contextmanager
def local_cluster(n_workers: int, worker_bytes: int) -> Iterator[str]:
    """Start a scheduler and workers, and yield the scheduler's address; they end with the context.

    Parameters
    ----------
    n_workers, worker_bytes
        Number of workers, each with one thread, and bytes of memory for each.

    Raises
    ------
    WorkerError
        The cluster cannot start.
    """
    import dask

    cluster = ConnectedPython("cellstamp.engines.dask_local")
    try:
        try:
            cluster.connection.send((n_workers, worker_bytes, dask.config.config))
            address: str = cluster.connection.recv()
        except (EOFError, OSError) as error:
            message = "the local dask cluster did not start. See the messages on standard error"
            raise WorkerError(message) from error
        yield address
    finally:
        cluster.hang_up()
        cluster.wait(_PATIENCE)


def main() -> None:
    """Run a cluster until the caller closes the connection."""
    caller = connect_to_caller()
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
