"""Choose the engine for a configuration, and run tasks on blocks of a mask or image."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import fields, replace
from typing import Protocol, TypeVar

from cellstamp.config import ExtractionConfig
from cellstamp.engines.base import Engine, SerialEngine
from cellstamp.engines.dask import DaskEngine
from cellstamp.engines.dask_client import connect
from cellstamp.engines.memory import memory_budget
from cellstamp.engines.processes import ProcessEngine

_PARALLEL_PIXELS = 16 * 2**20
"""Number of pixels below which one process is faster than starting workers."""

PRELOAD = ("cellstamp.cells.preload",)
"""Modules that the workers of an extraction import first."""


_PACKAGES = ("numpy", "zarr", "numba", "imagecodecs")
"""Packages that decide the values of images; workers need the same versions."""


@contextmanager
def open_engine(
    config: ExtractionConfig, *, log: Callable[[str], None], warn: Callable[[str], None]
) -> Iterator[Engine]:
    """Yield the engine for the configuration, connected to its cluster if it has one.

    Parameters
    ----------
    log, warn
        Called with a line when workers died, joined or left.
    """
    if config.engine != "dask":
        yield choose_engine(config, log=log, warn=warn)
        return
    worker_bytes = memory_budget(config.target_ram_utilization) // (config.threads + 1)
    with connect(config.dask_scheduler, n_workers=config.threads, worker_bytes=worker_bytes) as client:
        yield DaskEngine(client, _PACKAGES, log=log, warn=warn)


class _Workers(Protocol):
    """Keys of a step's configuration about workers."""

    @property
    def threads(self) -> int:
        """Number of workers."""
        ...

    @property
    def engine(self) -> str:
        """Name of the engine."""
        ...


def n_local_workers(config: _Workers) -> int:
    """Return the number of workers on this machine for blocks of a mask, also if batches run on a cluster."""
    return 1 if config.engine == "serial" else config.threads


def choose_engine(
    config: _Workers, *, log: Callable[[str], None], warn: Callable[[str], None], preload: Sequence[str] = PRELOAD
) -> Engine:
    """Return the local engine for the configuration; a single worker runs in this process.

    Parameters
    ----------
    log, warn
        Called with a line when workers died.
    preload
        Modules that workers import first.
    """
    if config.engine == "serial" or config.threads == 1:
        return SerialEngine()
    return ProcessEngine(config.threads, preload, log=log, warn=warn)


class _Area(Protocol):
    """Part of an image or mask."""

    @property
    def shape(self) -> tuple[int, int]:
        """Rows and columns."""
        ...


A = TypeVar("A", bound=_Area)
R = TypeVar("R")


class BlockRunner:
    """Apply tasks to blocks of an image or mask, in workers if there are many pixels.

    Parameters
    ----------
    n_workers
        Maximum number of workers.
    """

    def __init__(self, n_workers: int) -> None:
        self._n_workers = n_workers

    def __call__(self, task: Callable[[A], R], blocks: Sequence[A]) -> Iterator[R]:
        """Yield the results of the task for all blocks, dataclasses of arrays, in any order."""
        n_pixels = sum(block.shape[0] * block.shape[1] for block in blocks)
        alone = self._n_workers == 1 or n_pixels < _PARALLEL_PIXELS
        engine: Engine = SerialEngine() if alone else ProcessEngine(self._n_workers, PRELOAD)
        for outcome in engine.run(task, blocks, lambda: 4 * engine.n_workers):
            # results are kept, but the engine reuses their memory
            yield _copied(outcome.value)


def _copied(value: R) -> R:
    arrays = {field.name: getattr(value, field.name).copy() for field in fields(value)}  # type: ignore[arg-type]
    return replace(value, **arrays)  # type: ignore[type-var]
