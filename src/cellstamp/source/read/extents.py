"""How large cells are that may not fit into their windows."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from cellstamp.source.read.arrays import ArrayHandle
from cellstamp.source.read.centers import blocks_of, by_id, places_of, runs_of
from cellstamp.source.values import Rect


@dataclass(frozen=True)
class Extents:
    """Boxes around cells: ids ascending, and for each the first row, the last, the first column, the last (int64)."""

    ids: NDArray[np.int64]
    boxes: NDArray[np.int64]


@dataclass(frozen=True)
class BlockExtents:
    """Callable from a block of a mask to the boxes around some of its cells in it; picklable."""

    labels: ArrayHandle
    ids: NDArray[np.int64]

    def __call__(self, block: Rect) -> Extents:
        """Read one block and look for the cells."""
        found, totals = runs_of(self.labels.read(block), block)
        wanted = np.isin(found, self.ids)
        row, first, last = places_of(totals[wanted])
        return _merge(found[wanted], np.stack([row, row, first, last], axis=1))


Run = Callable[[BlockExtents, Sequence[Rect]], Iterable[Extents]]


def find_extents(labels: ArrayHandle, ids: NDArray[np.uint64], around: NDArray[np.int64], run: Run = map) -> Extents:
    """Find the boxes around some cells of a mask.

    Parameters
    ----------
    labels
        Integer mask (y, x), 0 = background.
    ids
        The cells.
    around
        (n, 4): areas (top, bottom, left, right, half open) where they are: only blocks that touch one are read.
    run
        How to apply a callable to every block; ``map`` does it here.

    Returns
    -------
    Extents
        Of those that have pixels there.
    """
    tops, bottoms, lefts, rights = around.T
    blocks = [
        block
        for block in blocks_of(labels)
        if ((tops < block.bottom) & (block.top < bottoms) & (lefts < block.right) & (block.left < rights)).any()
    ]
    parts = list(run(BlockExtents(labels, ids.astype(np.int64)), blocks))
    return _merge(np.concatenate([part.ids for part in parts]), np.concatenate([part.boxes for part in parts]))


def _merge(ids: NDArray[np.int64], boxes: NDArray[np.int64]) -> Extents:
    """One box around all that have the same id."""
    order, first = by_id(ids)
    ids, boxes = ids[order], boxes[order]
    if not first.size:
        return Extents(ids, boxes)
    low, high = np.minimum.reduceat(boxes, first), np.maximum.reduceat(boxes, first)
    return Extents(ids[first], np.stack([low[:, 0], high[:, 1], low[:, 2], high[:, 3]], axis=1))
