"""Measure the values of an image's channel in the compartments of a cell, as numpy does.

The values of each part (see `cellstamp.cells.kernels.parts`) are sorted and summed once. A compartment is one part, or
two of them.
"""

import math
from typing import Any

import numpy as np

from cellstamp.cells.kernels.parts import N_PARTS
from cellstamp.cells.kernels.quantiles import between
from cellstamp.cells.kernels.sorting import sort_keys, value_of_rank
from cellstamp.compiling.decorators import compiled_part

QUANTILES = (0.5, 0.05, 0.25, 0.75, 0.95)
"""Measured quantiles, the median first."""
N_INTENSITY = 10
"""Numbers that `measure_values` writes."""

_QUANTILES = np.array(QUANTILES)


@compiled_part
def sort_parts(values, ends, integers, scratch):
    """Sort the values of each part.

    Parameters
    ----------
    values
        From `cellstamp.cells.kernels.parts.list_values`, not negative.
    ends
        From `list_runs`.
    integers
        Whether values are integers.
    scratch
        From `new_sort_scratch`; its first array gets the values, float64.
    """
    in_order, bits, other, counts = scratch
    if integers:
        for k in range(ends[N_PARTS - 1]):
            bits[k] = values[k]
    else:
        for k in range(ends[N_PARTS - 1]):
            in_order[k] = values[k] + 0.0  # turns -0 into 0
    begin = 0
    for part in range(N_PARTS):
        # the bits of floats that are not negative have the order of the floats
        sort_keys(bits[begin : ends[part]], other, counts)
        begin = ends[part]
    if integers:
        for k in range(ends[N_PARTS - 1]):
            in_order[k] = bits[k]


@compiled_part
def measure_sorted(values, ends, n_masks, out):
    """Measure one channel.

    Parameters
    ----------
    values, ends
        From `sort_parts` and `list_runs`.
    n_masks
        1 or 2.
    out
        float64 (n_compartments, `N_INTENSITY`), written: nucleus, cell and cytoplasm, or the only mask.
    """
    one, both, other = values[: ends[0]], values[ends[0] : ends[1]], values[ends[1] : ends[2]]
    of_one, of_both, of_other, none = sums_of(one), sums_of(both), sums_of(other), values[:0]
    if n_masks == 2:
        measure_values(one, of_one, both, of_both, out[0])
        measure_values(both, of_both, other, of_other, out[1])
    measure_values(other, of_other, none, sums_of(none), out[out.shape[0] - 1])


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


def new_sort_scratch(n_pixels: int) -> tuple[Any, ...]:
    """Allocate the working memory of `sort_parts` for this number of pixels."""
    values = np.empty(n_pixels)
    return values, values.view(np.uint64), np.empty(n_pixels, np.uint64), np.empty(256, np.int64)
