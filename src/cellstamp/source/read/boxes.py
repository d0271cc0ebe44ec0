"""Find the runs of wanted ids in a block of a mask, and boxes around runs.

A box is int64 (4,): first row, last row, first column, last column.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from cellstamp.source.read.arrays import PixelArray
from cellstamp.source.read.centers import positions_of_runs, runs_of
from cellstamp.source.values import Rect


def wanted_runs(labels: PixelArray, ids: NDArray[np.int64], block: Rect) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    """Return the horizontal runs of these ids in a block: their ids (n,) and boxes (n, 4), by row, then by column."""
    found, totals = runs_of(labels.read(block), block)
    wanted = np.isin(found, ids)
    row, first, last = positions_of_runs(totals[wanted])
    return found[wanted], np.stack([row, row, first, last], axis=1)


def boxes_around(boxes: NDArray[np.int64], order: NDArray[np.intp], first: NDArray[np.intp]) -> NDArray[np.int64]:
    """Merge the boxes of each group into one; see `cellstamp.source.read.centers.by_id` for `order` and `first`."""
    low, high = np.minimum.reduceat(boxes[order], first), np.maximum.reduceat(boxes[order], first)
    return np.stack([low[:, 0], high[:, 1], low[:, 2], high[:, 3]], axis=1)
