"""Fill the holes of a mask."""

import numpy as np

from cellstamp.compiling.decorators import compiled, compiled_part

_OPEN = 2
"""Marks background connected to the edge. Its lowest bit is 0, like that of other background."""


@compiled
def fill_holes(mask, gaps):
    """Fill the holes of a mask in place: background that is not 4-connected to the edge of the area.

    Parameters
    ----------
    mask
        uint8 (height, width), 0 or 1: the mask's bounding box. Everything outside is background connected to
        the window's edge, so background on the edge of the box is never a hole.
    gaps
        int64 (>= height * width / 2, 3), scratch: row, first column and end of each gap between mask pixels of a row.

    Notes
    -----
    Only such gaps can belong to holes. A gap is open when the row above or below is open somewhere along it; gaps are
    opened in sweeps down and up until nothing changes, and those that stay closed are filled.
    """
    if not _has_gaps(mask):
        return
    count = _mark_edges(mask, gaps)
    opened = True
    while opened:
        opened = False
        for k in range(count):
            opened |= _open(mask, gaps[k])
        for k in range(count - 1, -1, -1):
            opened |= _open(mask, gaps[k])
    for k in range(count):
        row = mask[gaps[k, 0], gaps[k, 1] : gaps[k, 2]]
        if row[0] == 0:
            row[:] = 1
    for y in range(mask.shape[0]):
        row = mask[y]
        for x in range(row.size):
            row[x] &= 1


@compiled_part
def _has_gaps(mask):
    """Whether some row has background between two mask pixels: without one there can be no hole."""
    for y in range(mask.shape[0]):
        here, after = mask[y], mask[y, 1:]
        steps = np.int64(here[0] + mask[y, -1])
        for x in range(after.size):
            steps += here[x] ^ after[x]
        if steps > 2:
            return True
    return False


@compiled_part
def _mark_edges(mask, gaps):
    """Mark background that begins or ends a row, or lies in the first or last row, as open; list all other gaps."""
    height, width = mask.shape
    count = 0
    for y in range(height):
        row = mask[y]
        x = 0
        while x < width:
            if row[x]:
                x += 1
                continue
            first = x
            while x < width and row[x] == 0:
                x += 1
            if first == 0 or x == width or y == 0 or y == height - 1:
                row[first:x] = _OPEN
            else:
                gaps[count, 0], gaps[count, 1], gaps[count, 2] = y, first, x
                count += 1
    return count


@compiled_part
def _open(mask, gap):
    """Open a closed gap that touches an open pixel above or below; True if that happened."""
    y, first, end = gap[0], gap[1], gap[2]
    if mask[y, first] == _OPEN:
        return False
    above, below = mask[y - 1, first:end], mask[y + 1, first:end]
    for x in range(above.size):
        if above[x] == _OPEN or below[x] == _OPEN:
            mask[y, first:end] = _OPEN
            return True
    return False
