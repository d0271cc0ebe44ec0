"""Where batches run: the list of engines, and the choice of one. Engines get callables, and know nothing about images.

| engine | batches run in | file |
|---|---|---|
| ``"serial"`` | this process | `base`, with the interface of all engines |
| ``"processes"`` | workers on this machine | `processes`; how they start: `start_methods` |
| ``"dask"`` | the workers of a cluster | `dask` |
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any, Protocol

if TYPE_CHECKING:
    from cellstamp.config_rules import EngineName
    from cellstamp.engines.base import Engine

Tell = Callable[[str], None]
"""Called with a line when workers died, joined or left."""


class LocalKeys(Protocol):
    """Keys of a step's configuration about workers."""

    @property
    def threads(self) -> int:
        """Number of workers."""
        ...

    @property
    def engine(self) -> EngineName:
        """Name of the engine."""
        ...


class Keys(LocalKeys, Protocol):
    """Keys of a configuration about workers, on this machine or on a cluster."""

    @property
    def target_ram_utilization(self) -> float:
        """Share of the memory that may be used."""
        ...

    @property
    def dask_scheduler(self) -> Any:
        """Address of a scheduler, a client, or None."""
        ...


@contextmanager
def open_engine(
    keys: Keys, *, preload: Sequence[str], packages: Sequence[str], log: Tell, warn: Tell
) -> Iterator[Engine]:
    """Yield the engine for the configuration, connected to its cluster if it has one.

    Parameters
    ----------
    preload
        Modules that workers on this machine import first.
    packages
        Packages whose versions must be the same on the workers of a cluster.
    """
    if keys.engine != "dask":
        yield choose_engine(keys, preload=preload, log=log, warn=warn)
        return
    from cellstamp.engines.dask import DaskEngine
    from cellstamp.engines.dask_client import connect
    from cellstamp.engines.memory import memory_budget

    worker_bytes = memory_budget(keys.target_ram_utilization) // (keys.threads + 1)
    with connect(keys.dask_scheduler, n_workers=keys.threads, worker_bytes=worker_bytes) as client:
        yield DaskEngine(client, packages, log=log, warn=warn)


def choose_engine(keys: LocalKeys, *, preload: Sequence[str], log: Tell, warn: Tell) -> Engine:
    """Return the local engine for the configuration; a single worker runs in this process.

    Parameters
    ----------
    preload
        Modules that workers import first.
    """
    from cellstamp.engines.processes import ProcessEngine
    from cellstamp.engines.serial import SerialEngine

    if n_local_workers(keys) == 1:
        return SerialEngine()
    return ProcessEngine(keys.threads, preload, log=log, warn=warn)


def n_local_workers(keys: LocalKeys) -> int:
    """Return the number of workers on this machine for blocks of a mask, also if batches run on a cluster."""
    return 1 if keys.engine == "serial" else keys.threads
