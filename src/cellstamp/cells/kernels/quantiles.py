"""Rescale values to a range: two quantiles, or two given values."""

import math

from cellstamp.cells.kernels.boxes import copy_row
from cellstamp.compiling.decorators import compiled, compiled_part

FEW = 64
"""Order statistics this close to the upper end are found by insertion, others by partitioning."""


@compiled
def normalise(values, count, n_pixels, lower_q, upper_q, work):
    """Rescale ``values[:count]`` in place to their quantile range, clipped to [0, 1].

    Parameters
    ----------
    values
        float64, not negative: a plane's values inside the box.
    n_pixels
        Pixels of the window; the ``n_pixels - count`` values that are not listed are 0.
    lower_q, upper_q
        Quantiles, 0 <= lower_q < upper_q <= 1.
    work
        float64 (>= count and >= 2 * `FEW`,), scratch.

    Notes
    -----
    The quantiles are ``numpy.quantile(window, q)`` with its linear interpolation, in the same order of operations.
    """
    upper = _quantile(values, count, n_pixels, upper_q, work)
    lower = _quantile(values, count, n_pixels, lower_q, work)
    rescale(values, count, lower, upper)


@compiled_part
def rescale(values, count, lower, upper):
    """Map ``lower`` to 0 and ``upper`` to 1 in ``values[:count]``, in place, clipped to [0, 1]; if equal, subtract."""
    span = upper - lower
    if span == 0.0:
        span = 1.0
    for i in range(count):
        scaled = (values[i] - lower) / span
        scaled = scaled if scaled > 0.0 else 0.0
        values[i] = scaled if scaled < 1.0 else 1.0


@compiled_part
def _quantile(values, count, n_pixels, q, work):
    """Linear quantile of ``values[:count]`` together with ``n_pixels - count`` zeros."""
    position = (n_pixels - 1) * q
    below = math.floor(position)
    above = min(below + 1, n_pixels - 1)
    zeros = n_pixels - count
    if above < zeros:
        return 0.0
    a, b = _two_in_order(values, count, below - zeros, above - zeros, work)
    return between(a, b, position - below)


@compiled_part
def between(a, b, share):
    """Interpolate from a to b. numpy does so from the nearer end, which decides the last bit."""
    if share >= 0.5:
        return b - (b - a) * (1.0 - share)
    return a + (b - a) * share


@compiled_part
def _two_in_order(values, count, i, j, work):
    """The values of rank i and j (j is i or i + 1; ranks from 0, negative ones are zeros outside the box)."""
    from_top = count - i
    if from_top <= FEW:
        _largest(values, count, from_top, work)
        return work[from_top - 1], work[count - j - 1]
    if j < 0:
        return 0.0, 0.0
    copy_row(values[:count], work[:count])
    b = _select(work, count, j)
    if i == j:
        return b, b
    if i < 0:
        return 0.0, b
    a = work[0]
    for k in range(1, j):
        a = max(a, work[k])
    return a, b


@compiled_part
def _largest(values, count, n, work):
    """Write the n largest of ``values[:count]`` to ``work[:n]``, largest first, zeros filling up; n is `FEW` at most.

    The n-th largest of the maxima of `FEW` interleaved lanes is known to be reached by n values: only larger
    values have to be sorted, and most rows of `FEW` values hold none.
    """
    best, lanes = work[:n], work[FEW : 2 * FEW]
    rows = count // FEW
    _lane_maxima(values, rows, lanes)
    best[:] = 0.0
    _sort_in(lanes, best)
    floor = best[n - 1]
    best[:] = floor
    for r in range(rows):
        row = values[r * FEW : (r + 1) * FEW]
        larger = 0
        for k in range(FEW):
            larger += row[k] > floor
        if larger:
            _sort_in(row, best)
    _sort_in(values[rows * FEW : count], best)


@compiled_part
def _lane_maxima(values, rows, lanes):
    """Write the maximum of every column of ``values`` to ``lanes``; a row has `FEW` values, none below 0."""
    # four columns at a time, so that the compiler keeps their four maxima in one register
    for k in range(0, FEW, 4):
        a, b, c, d = 0.0, 0.0, 0.0, 0.0
        for r in range(rows):
            at = r * FEW + k
            a, b = max(a, values[at]), max(b, values[at + 1])
            c, d = max(c, values[at + 2]), max(d, values[at + 3])
        lanes[k], lanes[k + 1], lanes[k + 2], lanes[k + 3] = a, b, c, d


@compiled_part
def _sort_in(values, best):
    """Keep the largest of ``best`` and ``values`` in ``best``, largest first."""
    last = best.size - 1
    for k in range(values.size):
        value = values[k]
        if value > best[last]:
            at = last
            while at > 0 and best[at - 1] < value:
                best[at] = best[at - 1]
                at -= 1
            best[at] = value


@compiled_part
def _select(work, count, rank):
    """Partition ``work[:count]`` at a rank, with smaller values before it, and return the value of that rank."""
    low, high = 0, count - 1
    while low < high:
        pivot = _median_of_three(work[low], work[(low + high) // 2], work[high])
        i, j = low, high
        while i <= j:
            while work[i] < pivot:
                i += 1
            while work[j] > pivot:
                j -= 1
            if i <= j:
                work[i], work[j] = work[j], work[i]
                i += 1
                j -= 1
        if rank <= j:
            high = j
        elif rank >= i:
            low = i
        else:
            break
    return work[rank]


@compiled_part
def _median_of_three(a, b, c):
    return max(min(a, b), min(max(a, b), c))
