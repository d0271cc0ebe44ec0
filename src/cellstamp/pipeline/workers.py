"""What workers need, and tasks on blocks of a mask or image."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import fields, replace
from typing import Protocol, TypeVar

from cellstamp.engines.base import Engine
from cellstamp.engines.processes import ProcessEngine
from cellstamp.engines.serial import SerialEngine

_PARALLEL_PIXELS = 16 * 2**20
"""Number of pixels below which one process is faster than starting workers."""

PRELOAD = ("cellstamp.cells.preload",)
"""Modules that the workers of an extraction import first."""
PACKAGES = ("numpy", "zarr", "numba", "imagecodecs")
"""Packages that decide the values of images; workers need the same versions."""


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
