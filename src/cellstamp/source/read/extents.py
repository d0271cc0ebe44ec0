"""Find the boxes around cells that may be larger than their crops."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from cellstamp.source.outlines import OutlineMask
from cellstamp.source.read.arrays import Mask, PixelArray
from cellstamp.source.read.boxes import boxes_around, wanted_runs
from cellstamp.source.read.centers import blocks_of, by_id
from cellstamp.source.values import Rect


@dataclass(frozen=True)
class Extents:
    """Boxes around cells.

    Attributes
    ----------
    ids
        int64 (n,), ascending.
    boxes
        int64 (n, 4): first row, last row, first column, last column.
    """

    ids: NDArray[np.int64]
    boxes: NDArray[np.int64]


@dataclass(frozen=True)
class BlockExtents:
    """Picklable callable that finds the boxes around wanted cells in a block of a mask."""

    labels: PixelArray
    ids: NDArray[np.int64]

    def __call__(self, block: Rect) -> Extents:
        """Read one block and find the boxes."""
        return _merge(*wanted_runs(self.labels, self.ids, block))


Run = Callable[[BlockExtents, Sequence[Rect]], Iterable[Extents]]


def find_extents(mask: Mask, ids: NDArray[np.uint64], around: NDArray[np.int64], run: Run = map) -> Extents:
    """Find the boxes around cells of a mask.

    Parameters
    ----------
    mask
        Labels (y, x), 0 = background; or outlines, whose boxes are known.
    ids
        The cells.
    around
        int64 (n, 4): areas of the cells (top, bottom, left, right, half open). Only blocks that overlap one are read.
    run
        Applies a callable to every block, like ``map``.

    Returns
    -------
    Extents
        Boxes of the cells that have pixels there.
    """
    if isinstance(mask, OutlineMask):
        drawn = ids[mask.numbers_of(ids) >= 0]
        return Extents(drawn.astype(np.int64), mask.boxes(drawn))
    tops, bottoms, lefts, rights = around.T
    blocks = [
        block
        for block in blocks_of(mask)
        if ((tops < block.bottom) & (block.top < bottoms) & (lefts < block.right) & (block.left < rights)).any()
    ]
    parts = list(run(BlockExtents(mask, ids.astype(np.int64)), blocks))
    return _merge(np.concatenate([part.ids for part in parts]), np.concatenate([part.boxes for part in parts]))


def _merge(ids: NDArray[np.int64], boxes: NDArray[np.int64]) -> Extents:
    """Merge the boxes of each id into one."""
    order, first = by_id(ids)
    return Extents(ids[order][first], boxes_around(boxes, order, first))
