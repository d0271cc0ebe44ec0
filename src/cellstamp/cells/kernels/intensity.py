"""Measure the values of an image's channel in the compartments of a cell, as numpy does.

Pixels are listed in three parts: those of the first mask only, those of both, and those of the last mask only. Each is
sorted and summed once. A compartment is one part, or two of them.
"""

import math

import numpy as np

from cellstamp.cells.kernels.quantiles import between
from cellstamp.cells.kernels.sorting import sort_keys, value_of_rank
from cellstamp.compiling.decorators import compiled_part

QUANTILES = (0.5, 0.05, 0.25, 0.75, 0.95)
"""Measured quantiles, the median first."""
N_INTENSITY = 10
"""Numbers that `measure_values` writes."""

_QUANTILES = np.array(QUANTILES)


@compiled_part
def list_pixels(masks, box, start, step, places):
    """List the pixels of a cell in three parts, one after the other.

    Parameters
    ----------
    masks
        uint8 (1 or 2, y, x), 0 or 1.
    box
        The box around both: first row, end of rows, first column, end of columns.
    start, step
        Place of the window's first pixel in the memory of a channel, and distance between its rows.
    places
        int64 (>= pixels of the box + 1,), written: place of each pixel.

    Returns
    -------
    tuple of int
        End of each part. With one mask, all its pixels are in the third.
    """
    if masks.shape[0] == 1:
        return 0, 0, list_where(masks[0], masks[0], 1, 1, box, start, step, places)
    only_first = list_where(masks[0], masks[1], 1, 0, box, start, step, places)
    both = only_first + list_where(masks[0], masks[1], 1, 1, box, start, step, places[only_first:])
    return only_first, both, both + list_where(masks[0], masks[1], 0, 1, box, start, step, places[both:])


@compiled_part
def list_where(first, last, is_first, is_last, box, start, step, places):
    """List the pixels where both masks have these values; return their number."""
    count = 0
    for y in range(box[0], box[1]):
        one, other, place = first[y], last[y], start + y * step
        for x in range(box[2], box[3]):
            # written in any case: a branch would take longer
            places[count] = place + x
            count += (one[x] == is_first) & (other[x] == is_last)
    return count


@compiled_part
def read_sorted(pixels, places, integers, values, scratch):
    """Read the values of listed pixels, and sort them.

    Parameters
    ----------
    pixels
        Values of a channel that are not negative, as one row.
    places
        int64 (n,).
    integers
        Whether these are integers.
    values
        float64 (n,), written.
    scratch
        The memory of ``values`` as uint64, and the scratch of `sort_keys`.
    """
    bits, other, counts = scratch
    if integers:
        for k in range(places.size):
            bits[k] = pixels[places[k]]
        sort_keys(bits, other, counts)
        for k in range(places.size):
            values[k] = bits[k]
    else:
        # the bits of floats that are not negative have the order of the floats; adding 0 turns -0 into 0
        for k in range(places.size):
            values[k] = pixels[places[k]] + 0.0
        sort_keys(bits, other, counts)


@compiled_part
def sums_of(values):
    """Return number, sum, mean, and sum of the squared distances from the mean."""
    n = values.size
    if n == 0:
        return 0, 0.0, 0.0, 0.0
    total = sum_in_lanes(values, 0.0, 1)
    mean = total / n
    return n, total, mean, sum_in_lanes(values, mean, 2)


@compiled_part
def sum_in_lanes(values, middle, power):
    """Return the sum of distances from the middle, or of their squares: four sums at a time, which is faster."""
    a = b = c = d = 0.0
    n = values.size // 4 * 4
    for k in range(0, n, 4):
        v, w, x, y = values[k] - middle, values[k + 1] - middle, values[k + 2] - middle, values[k + 3] - middle
        if power == 2:
            v, w, x, y = v * v, w * w, x * x, y * y
        a, b, c, d = a + v, b + w, c + x, d + y
    for k in range(n, values.size):
        v = values[k] - middle
        a += v * v if power == 2 else v
    return (a + b) + (c + d)


@compiled_part
def measure_values(one, of_one, other, of_other, out):
    """Measure the values of two sorted lists together.

    Parameters
    ----------
    one, other
        float64 (n,), sorted.
    of_one, of_other
        From `sums_of`.
    out
        float64 (`N_INTENSITY`,), written: mean, standard deviation, minimum, maximum, sum, median, and the quantiles
        0.05, 0.25, 0.75 and 0.95. Without values, the sum is 0, all others are NaN.
    """
    n = one.size + other.size
    if n == 0:
        for k in range(N_INTENSITY):
            out[k] = math.nan
        out[4] = 0.0
        return
    total = of_one[1] + of_other[1]
    apart = of_one[2] - of_other[2]
    squares = of_one[3] + of_other[3] + apart * apart * (one.size / n) * other.size
    out[0], out[1], out[4] = total / n, math.sqrt(squares / n), total
    out[2], out[3] = value_of_rank(one, other, 0), value_of_rank(one, other, n - 1)
    for k in range(_QUANTILES.size):
        out[5 + k] = quantile_of(one, other, n, _QUANTILES[k])


@compiled_part
def quantile_of(one, other, n, share):
    """Return a quantile of two sorted lists: ``numpy.quantile`` with its linear interpolation."""
    position = (n - 1) * share
    below = math.floor(position)
    low = value_of_rank(one, other, below)
    high = value_of_rank(one, other, min(below + 1, n - 1))
    return between(low, high, position - below)
