"""Measure a channel in the compartments of a cell by counting its values: integers of at most 16 bits.

Values are counted in bins. The bin of a quantile's rank follows from the counts. If a bin stands for several values,
those in it are counted one by one. Counting takes a quarter of the time of sorting.
"""

import math
from typing import Any

import numpy as np

from cellstamp.cells.kernels.parts import N_PARTS, first_compartment
from cellstamp.cells.kernels.quantiles import between
from cellstamp.compiling.decorators import compiled_part

MOST_COUNTED = 2**16 - 1
"""Largest number of pixels of a cell: counts have 16 bits."""
_BINS = 8192
"""Largest number of bins: each value of an image with 12 or 13 bits has its own."""
_BLOCK = 64
"""Bins that are summed together, so that a rank is found in few steps."""
_LANES = 4
"""Counts in a word of 64 bits."""
_ALL_LANES, _LAST_LANE = np.uint64(0x0001000100010001), np.uint64(48)
_SHARES = np.array([0.05, 0.25, 0.5, 0.75, 0.95])
_PLACES = np.array([6, 7, 5, 8, 9])
"""Where these quantiles are written, see `measure_counted`."""
_N_RANKS = 2 * _SHARES.size
"""Ranks per compartment: a quantile lies between the values of two ranks."""


@compiled_part
def measure_counted(values, ends, n_masks, out, scratch):
    """Measure one channel.

    Parameters
    ----------
    values, ends
        From `cellstamp.cells.kernels.parts.list_values`, and from `list_runs`; at most `MOST_COUNTED` values.
    n_masks
        1 or 2.
    out
        float64 (n_compartments, `N_INTENSITY`), written; see `cellstamp.cells.kernels.intensity.measure_values`.
    scratch
        From `new_count_scratch`.
    """
    sums, bins, counts, words, blocks, used, found, slots, few = scratch
    base, shift, n_blocks = sum_parts(values, ends, sums)
    count_bins(values, ends, base, shift, bins, counts, words, blocks[:, :n_blocks], used)
    if shift > 0:
        slots[: n_blocks * _BLOCK] = 0
    n_slots = 1
    first = first_compartment(n_masks)
    for part in range(first, N_PARTS):
        n = write_sums(part, ends, sums, out[part - first])
        find_bins(part, n, counts, words, blocks, found[part])
        if shift > 0 and n > 0:
            n_slots = give_slots(found[part], slots, n_slots)
    if shift > 0:
        count_few(values, ends, base, shift, bins, slots, n_slots, few)
    for part in range(first, N_PARTS):
        write_quantiles(part, ends, base, shift, found[part], slots, few, out[part - first])


@compiled_part
def sum_parts(values, ends, sums):
    """Write minimum, maximum, sum, and sum of squares of each part.

    Returns
    -------
    tuple
        Minimum of all values; the shift of bins: bin k has the values from ``minimum + (k << shift)``; and the number
        of their blocks.
    """
    start, nothing, most_of_all = 0, np.int64(0), np.int64(2**16)
    low, high = most_of_all, nothing
    for part in range(N_PARTS):
        least, most, total, squares = most_of_all, nothing, nothing, nothing
        # a slice: indices from 0 cannot be negative, so the loop needs no check for it
        own = values[start : ends[part]]
        for k in range(own.size):
            value = np.int64(own[k])
            least, most = min(least, value), max(most, value)
            total += value
            squares += value * value
        sums[part, 0], sums[part, 1], sums[part, 2], sums[part, 3] = least, most, total, squares
        low, high = min(low, least), max(high, most)
        start = ends[part]
    shift = 0
    last = high - low if high > low else nothing
    while last >> shift >= _BINS:
        shift += 1
    return low, shift, (last >> shift) // _BLOCK + 1


@compiled_part
def count_bins(values, ends, base, shift, bins, counts, words, blocks, used):
    """List the bins of all values, and count the values of each part in bins and in blocks of bins.

    ``words`` is the memory of ``counts`` as uint64, ``blocks`` are those in use, and ``used`` are the numbers of words
    that the last call changed.

    The row after the last part stays 0: the last compartment has one part only.
    """
    for k in range(ends[N_PARTS - 1]):
        bins[k] = (np.int64(values[k]) - base) >> shift
    n_words = blocks.shape[1] * _BLOCK // _LANES
    start = 0
    for part in range(N_PARTS):
        own, listed = counts[part], bins[start : ends[part]]
        words[part, : used[part]] = 0
        for k in range(listed.size):
            own[listed[k]] += 1
        if listed.size:
            add_blocks(words[part], blocks[part])
            used[part] = n_words
        else:
            blocks[part] = 0
            used[part] = 0
        start = ends[part]


@compiled_part
def add_blocks(words, blocks):
    """Add the counts of each block, four at a time: no sum has more than 16 bits."""
    size = _BLOCK // _LANES
    for block in range(blocks.size):
        total = np.uint64(0)
        for k in range(block * size, (block + 1) * size):
            total += words[k]
        blocks[block] = sum_lanes(total)


@compiled_part
def sum_lanes(word):
    """Return the sum of the four counts in a word."""
    return np.int64(word * _ALL_LANES >> _LAST_LANE)


@compiled_part
def find_bins(part, n, counts, words, blocks, found):
    """Write the bin of each rank of a compartment with n values, and how many of its values are before it."""
    one, other, of_one, of_other = words[part], words[part + 1], blocks[part], blocks[part + 1]
    block = before = 0
    for k in range(_N_RANKS if n else 0):
        rank = rank_of(k, n)
        # few values: the rank below a quantile can be before the rank above the one before
        while before > rank:
            block -= 1
            before -= of_one[block] + of_other[block]
        while before + of_one[block] + of_other[block] <= rank:
            before += of_one[block] + of_other[block]
            block += 1
        word, rest = block * (_BLOCK // _LANES), rank - before
        here = sum_lanes(one[word] + other[word])
        while rest >= here:
            rest -= here
            word += 1
            here = sum_lanes(one[word] + other[word])
        at = word * _LANES
        here = np.int64(counts[part, at]) + counts[part + 1, at]
        while rest >= here:
            rest -= here
            at += 1
            here = np.int64(counts[part, at]) + counts[part + 1, at]
        found[k, 0], found[k, 1] = at, rest


@compiled_part
def give_slots(found, slots, n_slots):
    """Give a slot to each bin with a rank, and return the number of slots. Slot 0 is that of all other bins."""
    for k in range(_N_RANKS):
        at = found[k, 0]
        if slots[at] == 0:
            slots[at] = n_slots
            n_slots += 1
    return n_slots


@compiled_part
def rank_of(k, n):
    """Return number k of the ranks: of quantile k // 2 the one below it, then the one above it."""
    return min(math.floor((n - 1) * _SHARES[k // 2]) + k % 2, n - 1)


@compiled_part
def count_few(values, ends, base, shift, bins, slots, n_slots, few):
    """Count the values in the bins with a slot, one by one."""
    last = (1 << shift) - 1
    start = 0
    for part in range(N_PARTS):
        own, listed, pixels = few[part], bins[start : ends[part]], values[start : ends[part]]
        for slot in range(n_slots):
            for k in range(last + 1):
                own[slot, k] = 0
        for k in range(listed.size):
            slot = slots[listed[k]]
            if slot:
                own[slot, (np.int64(pixels[k]) - base) & last] += 1
        start = ends[part]


@compiled_part
def write_sums(part, ends, sums, out):
    """Write what follows from sums of a compartment, and return its number of pixels.

    The squares are moved to the integer below the mean, so that nothing cancels.
    """
    n = ends[part] - (ends[part - 1] if part > 0 else 0)
    least, most, total, squares = sums[part, 0], sums[part, 1], sums[part, 2], sums[part, 3]
    if part + 1 < N_PARTS:
        other = sums[part + 1]
        n += ends[part + 1] - ends[part]
        least, most = min(least, other[0]), max(most, other[1])
        total, squares = total + other[2], squares + other[3]
    if n == 0:
        out[:] = math.nan
        out[4] = 0.0
        return n
    middle = total // n
    rest = (total - n * middle) / n
    moved = squares - 2 * middle * total + n * middle * middle
    out[0], out[1] = total / n, math.sqrt(max(moved / n - rest * rest, 0.0))
    out[2], out[3], out[4] = least, most, total
    return n


@compiled_part
def write_quantiles(part, ends, base, shift, found, slots, few, out):
    """Write the quantiles of a compartment: ``numpy.quantile`` with its linear interpolation."""
    end = ends[min(part + 1, N_PARTS - 1)]
    n = end - (ends[part - 1] if part > 0 else 0)
    for k in range(_SHARES.size if n else 0):
        position = (n - 1) * _SHARES[k]
        low = base + value_in(part, found[2 * k], shift, slots, few)
        high = base + value_in(part, found[2 * k + 1], shift, slots, few)
        out[_PLACES[k]] = between(np.float64(low), np.float64(high), position - math.floor(position))


@compiled_part
def value_in(part, place, shift, slots, few):
    """Return a value of a bin, relative to the smallest of all bins."""
    at, rest = place[0], place[1]
    if shift == 0:
        return at
    one, other = few[part, slots[at]], few[part + 1, slots[at]]
    value = 0
    while rest >= one[value] + other[value]:
        rest -= one[value] + other[value]
        value += 1
    return (at << shift) + value


def new_count_scratch(n_pixels: int) -> tuple[Any, ...]:
    """Allocate the working memory of `measure_counted` for this number of pixels."""
    n_slots = 1 + N_PARTS * _N_RANKS
    counts = np.zeros((N_PARTS + 1, _BINS), np.uint16)
    return (
        np.empty((N_PARTS, 4), np.int64),
        # unsigned: indices that cannot be negative are not checked for it
        np.empty(n_pixels, np.uint16),
        counts,
        counts.view(np.uint64),
        np.zeros((N_PARTS + 1, _BINS // _BLOCK), np.int32),
        np.zeros(N_PARTS, np.int64),
        np.empty((N_PARTS, _N_RANKS, 2), np.int64),
        np.empty(_BINS, np.uint8),
        np.zeros((N_PARTS + 1, n_slots, 2**16 // _BINS), np.int32),
    )
