"""The task of a worker: a batch of cells -> compressed single-cell images."""

from __future__ import annotations

from functools import cached_property
from typing import TYPE_CHECKING, Any

import numpy as np

from cellstamp.cells.plan import Batch
from cellstamp.cells.stamps import CropSettings, Stamps
from cellstamp.compiling.cache_folders import Types
from cellstamp.source.read.arrays import PixelSource

if TYPE_CHECKING:
    from cellstamp.cells.cutter import StampCutter
    from cellstamp.rules import StampType


def types_of(source: PixelSource, dtype: StampType) -> Types:
    """Which types the kernels are compiled for, to make single-cell images of ``dtype``."""
    return Types(np.dtype(source.label_dtype).name, np.dtype(source.image.dtype).name, dtype)


class StampTask:
    """Callable from a batch to its stamps; picklable, what it works with is made in the process that uses it.

    The payload it returns is valid until the next call.
    """

    def __init__(self, source: PixelSource, recipe: CropSettings) -> None:
        self._source = source
        self._recipe = recipe

    def __reduce__(self) -> tuple[Any, ...]:
        """Take along only what says what to do."""
        return type(self), (self._source, self._recipe)

    def __call__(self, batch: Batch) -> Stamps:
        """Read, cut and encode a batch."""
        return self._cutter.cut(batch)

    def signature(self) -> tuple[str, ...]:
        """Tell the image and the masks that it reads from any others; on another host a copy will do."""
        return tuple(array.sample() for array in (self._source.image, *self._source.masks))

    def warm_up(self) -> None:
        """Load compiled code, or compile it: where batches are dealt out, nobody then has to wait for who does so."""
        from cellstamp.cells.warm import load_kernels

        load_kernels(types_of(self._source, self._recipe.dtype))

    @cached_property
    def _cutter(self) -> StampCutter:
        # compiled code is loaded with it: time and memory that only those who cut stamps should need
        from cellstamp.cells.cutter import StampCutter

        return StampCutter(self._source, self._recipe)
