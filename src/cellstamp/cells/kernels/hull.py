"""Count the pixels in the convex hull of a mask, as ``skimage.morphology.convex_hull_image`` defines it.

The hull is that of the midpoints of all pixels' edges. A pixel belongs to it if its centre is inside or on the line.
Coordinates are doubled, so that all are integers and no result is rounded.
"""

import numpy as np

from cellstamp.compiling.decorators import compiled_part


@compiled_part
def hull_area(width, ends, chain):
    """Count the pixels in the convex hull of a mask.

    Parameters
    ----------
    width
        Width of the mask's bounding box.
    ends
        int64 (2, height), changed: from `cellstamp.cells.kernels.shape.list_ends`. The first and the last row have
        pixels.
    chain
        int64 (>= 2 * height + 1, 2), scratch.

    Returns
    -------
    int
        The number of pixels.
    """
    left, right = ends[0], ends[1]
    reach(left, chain)
    reach(right, chain)
    area = 0
    for y in range(left.size):
        area += max(0, left[y] + right[y] - width + 2)
    return area


@compiled_part
def reach(ends, chain):
    """Replace the last pixel of each row by that of the hull.

    Parameters
    ----------
    ends
        int64 (height,): last column of each row, or -1 for rows without pixels.
    chain
        int64 (>= 2 * height + 1, 2), scratch: row and column of the hull's corners, doubled.
    """
    height = ends.size
    count = 0
    for row in range(-1, 2 * height):
        if row % 2 and 0 < row < 2 * height - 1 and is_inside(ends[row // 2], ends[row // 2 + 1]):
            continue
        column = furthest(ends, row)
        if column < 0:
            continue
        while count > 1 and not turns(chain[count - 2], chain[count - 1], row, column):
            count -= 1
        chain[count, 0], chain[count, 1] = row, column
        count += 1
    at = 0
    for y in range(height):
        while chain[at + 1, 0] < 2 * y:
            at += 1
        rows = chain[at + 1, 0] - chain[at, 0]
        columns = chain[at + 1, 1] - chain[at, 1]
        # positive numbers below 2**31: floats divide them exactly enough, and in half the time
        ends[y] = np.int64((chain[at, 1] * rows + columns * (2 * y - chain[at, 0])) / (2 * rows))


@compiled_part
def is_inside(above, below):
    """Whether the midpoint between two rows cannot be a corner: their last pixels are at most one column apart.

    The line between the midpoints at the sides of these pixels runs through it, or outside of it.
    """
    return above >= 0 and below >= 0 and -1 <= above - below <= 1


@compiled_part
def furthest(ends, row):
    """Return the last midpoint of an edge in a doubled row, doubled, or -1."""
    y = row // 2
    if row % 2 == 0:
        return 2 * ends[y] + 1 if ends[y] >= 0 else -1
    above, below = (ends[y] if y >= 0 else -1), (ends[y + 1] if y + 1 < ends.size else -1)
    return 2 * max(above, below)


@compiled_part
def turns(before, corner, row, column):
    """Whether the outline turns inwards at a corner, on the way from the corner before it to a point."""
    return (corner[1] - before[1]) * (row - before[0]) > (column - before[1]) * (corner[0] - before[0])
