"""Count the pixels in the convex hull of a mask, as ``skimage.morphology.convex_hull_image`` defines it.

The hull is that of the midpoints of all pixels' edges. A pixel belongs to it if its centre is inside or on the line.
Coordinates are doubled, so that all are integers and no result is rounded.
"""

from cellstamp.compiling.decorators import compiled_part


@compiled_part
def hull_area(cell, ends, chain):
    """Count the pixels in the convex hull of a mask.

    Parameters
    ----------
    cell
        uint8 (height, width), 0 or 1: the mask's bounding box. Its first and last row have pixels.
    ends
        int64 (2, >= height), scratch.
    chain
        int64 (>= 2 * height + 1, 2), scratch.

    Returns
    -------
    int
        The number of pixels.
    """
    height, width = cell.shape
    left, right = ends[0], ends[1]
    for y in range(height):
        row, first, last = cell[y], 0, width - 1
        while first < width and row[first] == 0:
            first += 1
        while last >= 0 and row[last] == 0:
            last -= 1
        # seen from the other side, the left end is a right end
        left[y], right[y] = (width - 1 - first if first < width else -1), last
    reach(left[:height], chain)
    reach(right[:height], chain)
    area = 0
    for y in range(height):
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
        ends[y] = (chain[at, 1] * rows + columns * (2 * y - chain[at, 0])) // (2 * rows)


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
