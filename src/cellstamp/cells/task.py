"""The task of a worker: a batch of cells -> compressed single-cell images."""

from __future__ import annotations

from functools import cached_property
from typing import TYPE_CHECKING, Any

import numpy as np

from cellstamp.cells.crop_settings import CropSettings
from cellstamp.cells.finished_batch import FinishedBatch
from cellstamp.cells.plan import Batch
from cellstamp.compiling.cache_folders import Types
from cellstamp.source.read.arrays import PixelSource

if TYPE_CHECKING:
    from cellstamp.cells.cutter import StampCutter
    from cellstamp.config_rules import StampType


def types_of(source: PixelSource, dtype: StampType) -> Types:
    """Return the types that the kernels are compiled for, for single-cell images of ``dtype``."""
    return Types(np.dtype(source.label_dtype).name, np.dtype(source.image.dtype).name, dtype)


class StampTask:
    """Callable that returns the single-cell images of a batch; picklable, with buffers made in each process.

    The payload of a result is valid until the next call.
    """

    def __init__(self, source: PixelSource, recipe: CropSettings) -> None:
        self._source = source
        self._recipe = recipe

    def __reduce__(self) -> tuple[Any, ...]:
        """Pickle the arguments only."""
        return type(self), (self._source, self._recipe)

    def __call__(self, batch: Batch) -> FinishedBatch:
        """Read, cut and encode a batch."""
        return self._cutter.cut(batch)

    def signature(self) -> tuple[str, ...]:
        """Return samples that identify the image and the masks; copies on other hosts give the same."""
        return tuple(array.sample() for array in self._source.elements)

    def warm_up(self) -> None:
        """Load compiled code, or compile it, before batches are assigned to workers."""
        from cellstamp.cells.load_kernels import load_kernels

        load_kernels(types_of(self._source, self._recipe.dtype))
        if self._source.loops:
            from cellstamp.source.read.loops import load_loops

            for loops in self._source.loops:
                load_loops(loops)

    @cached_property
    def _cutter(self) -> StampCutter:
        # this import loads compiled code, which only processes that cut cells should pay for
        from cellstamp.cells.cutter import StampCutter

        return StampCutter(self._source, self._recipe)
