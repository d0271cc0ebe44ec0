"""Measure the values of an image's channel in a compartment of a cell, as numpy does."""

import math

import numpy as np

from cellstamp.cells.kernels.boxes import copy_row
from cellstamp.cells.kernels.quantiles import between, select
from cellstamp.compiling.decorators import compiled_part

QUANTILES = (0.05, 0.25, 0.5, 0.75, 0.95)
"""Measured quantiles; the middle one is the median."""
N_INTENSITY = 10
"""Numbers that `measure_values` writes."""

_QUANTILES = np.array(QUANTILES)


@compiled_part
def list_pixels(masks, box, places):
    """List the pixels of a cell by compartment: those of the first mask only, those of both, and those of the last.

    Parameters
    ----------
    masks
        uint8 (1 or 2, y, x), 0 or 1.
    box
        int64 (4,): the box around both.
    places
        int64 (2, >= pixels of the box), written: row and column of each pixel.

    Returns
    -------
    tuple of int
        End of each of the three lists. With one mask, all its pixels are in the third.
    """
    first, last = masks[0], masks[-1]
    two = masks.shape[0] == 2
    start = list_where(first, last, 1, 0, box, places, 0) if two else 0
    middle = list_where(first, last, 1, 1, box, places, start) if two else 0
    return start, middle, list_where(first, last, 0 if two else 1, 1, box, places, middle)


@compiled_part
def list_where(first, last, is_first, is_last, box, places, count):
    """List the pixels where both masks have these values, after ``count`` others; return the new number."""
    for y in range(box[0], box[1]):
        one, other = first[y], last[y]
        for x in range(box[2], box[3]):
            if one[x] == is_first and other[x] == is_last:
                places[0, count], places[1, count] = y, x
                count += 1
    return count


@compiled_part
def read_values(image, top, left, places, count, values):
    """Read the values of listed pixels, in a window of the image that starts at ``top``, ``left``."""
    for k in range(count):
        values[k] = image[top + places[0, k], left + places[1, k]]


@compiled_part
def measure_values(values, work, out):
    """Measure some values.

    Parameters
    ----------
    values
        float64 (n,).
    work
        float64 (>= n,), scratch.
    out
        float64 (`N_INTENSITY`,), written: mean, standard deviation, minimum, maximum, sum, median, and the quantiles
        0.05, 0.25, 0.75 and 0.95. Without values, the sum is 0, all others are NaN.
    """
    n = values.size
    if n == 0:
        out[:] = math.nan
        out[4] = 0.0
        return
    total, low, high = 0.0, values[0], values[0]
    for k in range(n):
        total += values[k]
        low, high = min(low, values[k]), max(high, values[k])
    mean, squares = total / n, 0.0
    for k in range(n):
        squares += (values[k] - mean) ** 2
    out[0], out[1], out[2], out[3], out[4] = mean, math.sqrt(squares / n), low, high, total
    copy_row(values, work[:n])
    order_ranks(work, n)
    out[5] = quantile_of(work, n, 2)
    out[6], out[7] = quantile_of(work, n, 0), quantile_of(work, n, 1)
    out[8], out[9] = quantile_of(work, n, 3), quantile_of(work, n, 4)


@compiled_part
def order_ranks(work, n):
    """Put the values of the ranks below the quantiles into their places, with smaller values before each."""
    middle = rank_below(n, 2)
    select(work, 0, n - 1, middle)
    for first, second, low, high in ((1, 0, 0, middle), (3, 4, middle, n - 1)):
        near = rank_below(n, first)
        select(work, low, high, near)
        if first == 1:
            select(work, low, near, rank_below(n, second))
        else:
            select(work, near, high, rank_below(n, second))


@compiled_part
def rank_below(n, number):
    """Return the rank of the value at or below a quantile of n values."""
    return math.floor((n - 1) * _QUANTILES[number])


@compiled_part
def quantile_of(work, n, number):
    """Return a quantile of values from `order_ranks`: ``numpy.quantile`` with its linear interpolation."""
    position = (n - 1) * _QUANTILES[number]
    below = math.floor(position)
    if below == n - 1:
        return work[below]
    # the next value is the smallest between this rank and a later one that is in its place
    end = n - 1
    for later in range(number + 1, _QUANTILES.size):
        rank = rank_below(n, later)
        if rank > below:
            end = rank
            break
    above = work[below + 1]
    for k in range(below + 2, end + 1):
        above = min(above, work[k])
    return between(work[below], above, position - below)
