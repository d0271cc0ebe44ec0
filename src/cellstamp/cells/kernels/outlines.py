"""Draw a cell's outline into its window: a pixel belongs to the cell if its centre lies inside."""

import numpy as np

from cellstamp.compiling.decorators import compiled, compiled_part

_CROSSING, _ON_LINE, _INSIDE = 1, 2, 4
"""Bits of a pixel while its cell is drawn: a line crosses the row before its centre; a line passes through its centre;
it is inside of a polygon that has been drawn."""

_SAFE = 1e-15
"""Relative error of a difference of two products of differences, in float64, at most (Shewchuk 1997)."""
_SPLITTER = 2.0**27 + 1


@compiled_part
def draw_cell(outlines, cell, top, left, size, mask):
    """Draw the polygons of one cell.

    The result is that of ``shapely.contains_xy`` at the centres of the pixels: rings are filled by the even-odd rule,
    polygons of one cell are joined, and a centre exactly on a line is outside. Pixel i of the image covers [i, i + 1).

    Parameters
    ----------
    outlines
        ``xy, rings, polygons, cells``; see `cellstamp.source.outlines.Outlines`.
    cell
        Number of the cell.
    top, left, size
        The window, in pixels of the image.
    mask
        uint8 (>= size, >= size), written: 1 inside, 0 outside; columns beyond ``size`` must be 0.
    """
    xy, rings, polygons, cells = outlines
    for y in range(size):
        mask[y, :] = 0
    for polygon in range(cells[cell], cells[cell + 1]):
        first, last = size, -1
        for ring in range(polygons[polygon], polygons[polygon + 1]):
            for at in range(rings[ring], rings[ring + 1] - 1):
                here, there = draw_line(xy[at, 0], xy[at, 1], xy[at + 1, 0], xy[at + 1, 1], top, left, size, mask)
                first, last = min(first, here), max(last, there)
        for y in range(first, last + 1):
            fill_row(mask[y], size)
    for y in range(size):
        row = mask[y]
        for x in range(size):
            row[x] = row[x] // _INSIDE


@compiled_part
def fill_row(row, size):
    """Fill between the crossings of a row, and remove them."""
    inside = False
    for x in range(size):
        inside ^= (row[x] & _CROSSING) != 0
        if inside and not row[x] & _ON_LINE:
            row[x] = _INSIDE
        else:
            row[x] &= _INSIDE


@compiled_part
def draw_line(x0, y0, x1, y1, top, left, size, mask):
    """Mark where a line crosses the rows of a window, and the pixels whose centres it passes through.

    Returns
    -------
    tuple of int
        First and last row that may have marks.
    """
    lower, upper = min(y0, y1), max(y0, y1)
    first, end = first_centre(lower, top, size), first_centre(upper, top, size)
    for y in range(first, end):
        row = top + y + 0.5
        x = first_right(x0, y0, x1, y1, row, left, size)
        if x < size:
            mask[y, x] ^= _CROSSING
            if side(x0, y0, x1, y1, left + x + 0.5, row) == 0:
                mask[y, x] |= _ON_LINE
    if end < size and top + end + 0.5 == upper:
        # the upper end is on a row of centres: only a corner, or a horizontal line, passes through them
        x_from, x_to = (min(x0, x1), max(x0, x1)) if lower == upper else (x0, x0) if y0 == upper else (x1, x1)
        for x in range(first_centre(x_from, left, size), size):
            if left + x + 0.5 > x_to:
                break
            mask[end, x] |= _ON_LINE
        return first, end
    return first, end - 1


@compiled_part
def first_centre(position, start, size):
    """Return the first pixel of a window whose centre is not before a position, or ``size``."""
    if not position > start:
        return 0
    if position > start + size:
        return size
    pixel = max(0, int(np.floor(position - start)) - 1)
    while pixel < size and start + pixel + 0.5 < position:
        pixel += 1
    return pixel


@compiled_part
def first_right(x0, y0, x1, y1, row, left, size):
    """Return the first pixel of a row whose centre is not left of the line that crosses it, or ``size``."""
    crossing = x0 + (row - y0) / (y1 - y0) * (x1 - x0)
    upwards = 1 if y1 > y0 else -1
    x = first_centre(crossing, left, size)
    # the crossing is rounded; the side is not
    while x > 0 and upwards * side(x0, y0, x1, y1, left + x - 0.5, row) <= 0:
        x -= 1
    while x < size and upwards * side(x0, y0, x1, y1, left + x + 0.5, row) > 0:
        x += 1
    return x


@compiled_part
def side(x0, y0, x1, y1, x, y):
    """Return on which side of a directed line a point lies: positive if left of it (y upwards), 0 on it; exact.

    The sign of ``(x0 - x) (y1 - y) - (y0 - y) (x1 - x)``, in twice the precision of float64 if float64 doesn't decide.
    """
    one, other = (x0 - x) * (y1 - y), (y0 - y) * (x1 - x)
    difference = one - other
    if abs(difference) > _SAFE * (abs(one) + abs(other)):
        return 1 if difference > 0 else -1
    one, one_rest = product(x0, x, y1, y)
    other, other_rest = product(y0, y, x1, x)
    high, low = exact_sum(one, -other)
    difference = high + (low + (one_rest - other_rest))
    return 1 if difference > 0 else -1 if difference < 0 else 0


@compiled_part
def product(a, b, c, d):
    """Return ``(a - b) * (c - d)`` as a float64 and a rest."""
    one, one_rest = exact_sum(a, -b)
    other, other_rest = exact_sum(c, -d)
    high, low = exact_product(one, other)
    return exact_sum(high, low + (one * other_rest + one_rest * other))


@compiled_part
def exact_sum(a, b):
    """Return the rounded sum of two numbers and its error (Knuth)."""
    total = a + b
    part = total - a
    return total, (a - (total - part)) + (b - part)


@compiled_part
def exact_product(a, b):
    """Return the rounded product of two numbers and its error (Dekker)."""
    total = a * b
    a_high = _SPLITTER * a - (_SPLITTER * a - a)
    b_high = _SPLITTER * b - (_SPLITTER * b - b)
    a_low, b_low = a - a_high, b - b_high
    return total, ((a_high * b_high - total) + a_high * b_low + a_low * b_high) + a_low * b_low


@compiled
def draw_cells(outlines, tops, lefts, masks):
    """Draw each cell into its window; ``masks`` is uint8 (n_cells, size, size)."""
    for cell in range(tops.size):
        draw_cell(outlines, cell, tops[cell], lefts[cell], masks.shape[1], masks[cell])
