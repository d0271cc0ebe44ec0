"""What is asked of a worker, and what comes back: a batch of cells -> compressed stamps."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from cellstamp.cells.plan import Batch
from cellstamp.compiling.places import Types
from cellstamp.source.arrays import PixelSource

if TYPE_CHECKING:
    from cellstamp.cells.cutter import StampCutter
    from cellstamp.codecs import Compression
    from cellstamp.rules import StampType


def types_of(source: PixelSource, dtype: StampType) -> Types:
    """Which types the kernels are compiled for, to make single-cell images of ``dtype``."""
    return Types(np.dtype(source.label_dtype).name, np.dtype(source.image.dtype).name, dtype)


@dataclass(frozen=True)
class Recipe:
    """How stamps are made.

    Attributes
    ----------
    image_size
        Side of a stamp in pixels.
    limits
        For each channel what becomes 0 and what becomes 1.
    per_cell
        Whether these are quantiles of each stamp, or values.
    brightest
        The largest value that a pixel of the image may have.
    apply_masks
        Whether channels are multiplied by the cell mask.
    dtype
        Of the stamps; what is 1 is the largest value of an integer type.
    compression
        HDF5 filter.
    """

    image_size: int
    limits: tuple[tuple[float, float], ...]
    per_cell: bool
    brightest: float
    apply_masks: bool
    dtype: StampType
    compression: Compression | None

    @property
    def plane_bytes(self) -> int:
        """Memory of one plane."""
        return self.image_size**2 * np.dtype(self.dtype).itemsize


@dataclass(frozen=True)
class Stamps:
    """Finished stamps of one batch.

    Attributes
    ----------
    rows
        int64 (n_cells,): where they stand in the result.
    sizes
        int64 (n_cells, n_planes): bytes of each plane in ``payload``; a plane of full size is not compressed.
    payload
        uint8: the planes, one after the other in C order of (cell, plane).
    n_empty
        int64 (n_masks,): for each mask, the cells that have no pixel of it in their window.
    on_edge
        int64: the rows among them whose cell mask reaches the edge of the window, and may go on outside.
    read_s, cut_s
        Seconds for reading pixels, and for cutting and encoding.
    """

    rows: NDArray[np.int64]
    sizes: NDArray[np.int64]
    payload: NDArray[np.uint8]
    n_empty: NDArray[np.int64]
    on_edge: NDArray[np.int64]
    read_s: float
    cut_s: float

    @property
    def nbytes(self) -> int:
        """Memory of the result."""
        return self.payload.nbytes + self.sizes.nbytes + self.rows.nbytes


class StampTask:
    """Callable from a batch to its stamps; picklable, what it works with is made in the process that uses it.

    The payload it returns is valid until the next call.
    """

    def __init__(self, source: PixelSource, recipe: Recipe) -> None:
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
