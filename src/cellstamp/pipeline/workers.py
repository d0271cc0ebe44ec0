"""Who does the work: the engine for a configuration, and workers for what is computed from a mask block by block."""

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
"""Masks of fewer pixels are summed up faster than workers start."""

PRELOAD = ("cellstamp.cells.preload",)
"""What the workers of an extraction need."""


_PACKAGES = ("numpy", "zarr", "numba", "imagecodecs")
"""What makes stamps: other versions may make others."""


@contextmanager
def open_engine(
    config: ExtractionConfig, *, log: Callable[[str], None], warn: Callable[[str], None]
) -> Iterator[Engine]:
    """The engine that the configuration asks for, connected to its cluster where it has one.

    Parameters
    ----------
    log, warn
        Told of workers that died, came or went.
    """
    if config.engine != "dask":
        yield choose_engine(config, log=log, warn=warn)
        return
    worker_bytes = memory_budget(config.target_ram_utilization) // (config.threads + 1)
    with connect(config.dask_scheduler, n_workers=config.threads, worker_bytes=worker_bytes) as client:
        yield DaskEngine(client, _PACKAGES, log=log, warn=warn)


class _Workers(Protocol):
    """What a step's configuration says about workers."""

    @property
    def threads(self) -> int:
        """How many."""
        ...

    @property
    def engine(self) -> str:
        """Where they are."""
        ...


def n_local_workers(config: _Workers) -> int:
    """How many workers of this machine may sum up masks; what they read is not worth a cluster."""
    return 1 if config.engine == "serial" else config.threads


def choose_engine(
    config: _Workers, *, log: Callable[[str], None], warn: Callable[[str], None], preload: Sequence[str] = PRELOAD
) -> Engine:
    """The engine of this machine that the configuration asks for; one worker needs no process of its own.

    Parameters
    ----------
    log, warn
        Told of workers that died.
    preload
        Modules that workers need.
    """
    if config.engine == "serial" or config.threads == 1:
        return SerialEngine()
    return ProcessEngine(config.threads, preload, log=log, warn=warn)


class _Area(Protocol):
    """A part of an image or a mask."""

    @property
    def shape(self) -> tuple[int, int]:
        """Rows and columns."""
        ...


A = TypeVar("A", bound=_Area)
R = TypeVar("R")


class BlockRunner:
    """Works on an image or a mask block by block, in workers where that is worth starting them.

    Parameters
    ----------
    n_workers
        How many, at most.
    """

    def __init__(self, n_workers: int) -> None:
        self._n_workers = n_workers

    def __call__(self, task: Callable[[A], R], blocks: Sequence[A]) -> Iterator[R]:
        """Return what the task makes of every block, dataclasses of arrays, in any order."""
        n_pixels = sum(block.shape[0] * block.shape[1] for block in blocks)
        alone = self._n_workers == 1 or n_pixels < _PARALLEL_PIXELS
        engine: Engine = SerialEngine() if alone else ProcessEngine(self._n_workers, PRELOAD)
        for outcome in engine.run(task, blocks, lambda: 4 * engine.n_workers):
            # they are kept to the end, but the engine uses their memory again
            yield _copied(outcome.value)


def _copied(value: R) -> R:
    arrays = {field.name: getattr(value, field.name).copy() for field in fields(value)}  # type: ignore[arg-type]
    return replace(value, **arrays)  # type: ignore[type-var]
