"""Connect to the configured dask cluster: a given client, the current one, an address, or a local cluster."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING

from cellstamp.engines.dask_local import local_cluster
from cellstamp.errors import ConfigError

if TYPE_CHECKING:
    from distributed import Client

_ANSWERS = 10
"""Seconds to wait for an answer of a scheduler."""


@contextmanager
def connect(scheduler: str | Client | None, *, n_workers: int, worker_bytes: int) -> Iterator[Client]:
    """Connect to a cluster. A cluster that starts here ends with the context; others keep running.

    Parameters
    ----------
    scheduler
        Address of a scheduler, or a client. None uses the current client, or else starts processes on this machine.
    n_workers, worker_bytes
        Number of processes, and bytes of memory for each, if they start here.

    Raises
    ------
    ConfigError
        distributed is not installed, or no scheduler answers at the address.
    WorkerError
        The processes cannot start.
    """
    try:
        import distributed  # noqa: F401
    except ImportError as error:
        message = "engine = 'dask': needs the package distributed: pip install 'cellstamp[dask]'"
        raise ConfigError(message) from error
    given = _current() if scheduler is None else scheduler
    if given is None:
        with local_cluster(n_workers, worker_bytes) as address, _client_at(address) as client:
            yield client
    elif isinstance(given, str):
        with _client_at(given) as client:
            yield client
    elif given.asynchronous or given.status != "running":
        what = "asynchronous" if given.asynchronous else given.status
        raise ConfigError(f"dask_scheduler: the client is {what}; make one with Client(address), and keep it open")
    else:
        yield given


def _current() -> Client | None:
    from distributed import default_client

    try:
        client: Client = default_client()
    except ValueError:
        return None
    return client


def _client_at(address: str) -> Client:
    from distributed import Client

    try:
        return Client(address, timeout=_ANSWERS, set_as_default=False)
    except (
        OSError,
        ValueError,
        MemoryError,
    ) as error:  # MemoryError: dask reads the answer of another server as a number of bytes
        message = (
            f"dask_scheduler = {address!r}: no scheduler answers there ({error}). Start one with 'dask scheduler', and "
            f"workers with 'dask worker ADDRESS --nthreads 1'; or leave dask_scheduler out to use this machine"
        )
        raise ConfigError(message) from error
