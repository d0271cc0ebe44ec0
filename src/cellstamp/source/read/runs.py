"""Find the runs of equal labels in the rows of a block, and their connected components; compiled."""

from typing import Any

import numpy as np
from numpy.typing import NDArray

from cellstamp.compiling.decorators import compiled


def sum_runs(rows: NDArray[np.int64], top: int, left: int) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    """List the horizontal runs of equal labels in a block.

    Parameters
    ----------
    rows
        int64 (y, x), C-contiguous; 0 = background.
    top, left
        Position of the block's first pixel in the mask.

    Returns
    -------
    ids, totals : numpy.ndarray
        int64 (n,): the label of each run; int64 (n, 3): its number of pixels, and the sums of their x and y.
    """
    count = count_runs(rows)
    # not in compiled code: loading code that allocates takes a tenth of a second more
    ids, totals = np.empty(count, np.int64), np.empty((count, 3), np.int64)
    _write_runs(rows, top, left, ids, totals)
    return ids, totals


@compiled
def count_runs(rows: Any) -> Any:
    """Return the number of horizontal runs; see `sum_runs`."""
    height, width = rows.shape
    count = 0
    for y in range(height):
        for x in range(width):
            count += rows[y, x] != 0 and (x == 0 or rows[y, x] != rows[y, x - 1])
    return count


@compiled
def _write_runs(rows: Any, top: int, left: int, ids: Any, totals: Any) -> None:
    height, width = rows.shape
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


@compiled
def join_runs(ids: Any, rows: Any, firsts: Any, lasts: Any) -> Any:
    """Find the connected components of runs: runs of one id that touch, also at a corner.

    Parameters
    ----------
    ids, rows, firsts, lasts
        int64 (n,): the label of each run, its row, its first and last column; ordered by row, then by column.

    Returns
    -------
    int64 (n,)
        For each run, the index of the first run of its component.
    """
    root = np.arange(ids.size)
    above = 0
    for run in range(ids.size):
        row, first, last = rows[run], firsts[run], lasts[run]
        while above < run and (rows[above] < row - 1 or (rows[above] == row - 1 and lasts[above] < first - 1)):
            above += 1
        other = above
        while other < run and rows[other] == row - 1 and firsts[other] <= last + 1:
            if ids[other] == ids[run]:
                a, b = _root(root, other), _root(root, run)
                root[max(a, b)] = min(a, b)
            other += 1
    for run in range(ids.size):
        root[run] = _root(root, run)
    return root


@compiled
def _root(root: Any, run: int) -> Any:
    while root[run] != run:
        root[run] = root[root[run]]  # shortens the path for the next look-up
        run = root[run]
    return run
