"""Compiled: a block of labels -> the runs of equal labels in its rows."""

from typing import Any

import numpy as np

from cellstamp.compiling.decorators import compiled


@compiled
def sum_runs(rows: Any, top: int, left: int) -> Any:
    """List the horizontal runs of equal labels in a block.

    Parameters
    ----------
    rows
        int64 (y, x), C-contiguous; 0 = background.
    top, left
        Where the block's first pixel is in the mask.

    Returns
    -------
    ids, totals
        int64 (n,), the label of each run; int64 (n, 3), its pixels, and the sums of their x and of their y.
    """
    height, width = rows.shape
    count = 0
    for y in range(height):
        for x in range(width):
            count += rows[y, x] != 0 and (x == 0 or rows[y, x] != rows[y, x - 1])
    ids, totals = np.empty(count, np.int64), np.empty((count, 3), np.int64)
    at = 0
    for y in range(height):
        x = 0
        while x < width:
            label, start = rows[y, x], x
            while x < width and rows[y, x] == label:
                x += 1
            if label != 0:
                n = x - start
                ids[at] = label
                totals[at, 0] = n
                totals[at, 1] = n * left + (start + x - 1) * n // 2
                totals[at, 2] = n * (top + y)
                at += 1
    return ids, totals
