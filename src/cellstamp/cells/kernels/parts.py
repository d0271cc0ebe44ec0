"""Divide the pixels of a cell into parts: those of the first mask only, those of both, those of the last mask only.

Pixels of a part are listed as runs, which lie next to each other in a row. With one mask, all are in the third part.
"""

from typing import Any

import numpy as np
from numba import types
from numba.core import cgutils
from numba.extending import intrinsic

from cellstamp.cells.kernels.bit_rows import PIXELS, n_words, place_of_first, shifted_right
from cellstamp.compiling.decorators import compiled_part, pointer_to

N_PARTS = 3
FIRST, BOTH, LAST = range(N_PARTS)

_ONE = np.uint64(1)


@compiled_part
def list_runs(bits, area, runs, ends):
    """List the runs of a cell's pixels, row by row.

    Parameters
    ----------
    bits, area
        The masks of the cell, uint64 (1 or 2, rows, words), see `cellstamp.cells.kernels.bit_rows`.
    runs
        int64 (>= pixels of the area, 4), written: row, first column, end of columns, and part of each run.
    ends
        int64 (3,), written: number of pixels up to the end of each part, if parts are listed one after the other.

    Returns
    -------
    int
        The number of runs.
    """
    first, last, n_masks, width = bits[0], bits[bits.shape[0] - 1], bits.shape[0], n_words(area)
    ends[:] = 0
    count = 0
    for y in range(area[0], area[1]):
        one, other = first[y + 1], last[y + 1]
        here = np.uint64(0)
        for j in range(1, width + 1):
            start = 8 * area[2] + PIXELS * (j - 1)
            changes = other[j] ^ shifted_right(other, j)
            if n_masks == 2:
                changes |= one[j] ^ shifted_right(one, j)
            while changes:
                place = place_of_first(changes)
                changes &= changes - _ONE
                x = start + np.int64(place)
                if here:
                    count = end_run(runs, count, x, ends)
                # 1: first mask only, 2: last mask only, 3: both
                here = (other[j] >> place & _ONE) << _ONE
                if n_masks == 2:
                    here |= one[j] >> place & _ONE
                if here:
                    runs[count, 0], runs[count, 1] = y, x
                    runs[count, 3] = BOTH if here == 3 else (FIRST if here == 1 else LAST)
        if here:
            count = end_run(runs, count, 8 * area[2] + PIXELS * width, ends)
    ends[1] += ends[0]
    ends[2] += ends[1]
    return count


@compiled_part
def end_run(runs, count, x, ends):
    """Write the end of a run, count its pixels, and return the number of runs."""
    runs[count, 2] = x
    ends[runs[count, 3]] += x - runs[count, 1]
    return count + 1


@compiled_part
def list_values(pixels, start, step, runs, ends, values):
    """List the values of a cell's pixels, one part after the other.

    Run by run, all channels: copies of the same size one after the other take less time.

    Parameters
    ----------
    pixels
        (n_channels, Y * X): the image, each channel as one row.
    start, step
        Place of the window's first pixel in this row, and distance between rows of the image.
    runs, ends
        From `list_runs`, without further rows.
    values
        (n_channels, >= pixels of the cell), in the dtype of ``pixels``, written.
    """
    at, both, last = 0, ends[0], ends[1]
    for k in range(runs.shape[0]):
        first, size, part = start + runs[k, 0] * step + runs[k, 1], runs[k, 2] - runs[k, 1], runs[k, 3]
        if part == FIRST:
            target, at = at, at + size
        elif part == BOTH:
            target, both = both, both + size
        else:
            target, last = last, last + size
        for c in range(pixels.shape[0]):
            copy_items(pixels[c], first, values[c], target, size)  # type: ignore[call-arg]  # numba adds the first one


@intrinsic
def copy_items(typing: Any, source: Any, start: Any, target: Any, at: Any, size: Any) -> Any:
    """Copy ``target[at:at + size] = source[start:start + size]`` of one dtype, without checking bounds.

    A loop over a short run takes three times as long.
    """
    del typing

    def build(context: Any, builder: Any, signature: Any, args: Any) -> Any:
        n_bytes = context.get_abi_sizeof(context.get_data_type(source.dtype))
        source_at, target_at = (pointer_to(context, builder, signature, args, k, k + 1) for k in (0, 2))
        cgutils.raw_memcpy(builder, target_at, source_at, args[4], n_bytes)
        return context.get_dummy_value()

    if source.dtype != target.dtype:
        return None
    return types.void(source, start, target, at, size), build


@compiled_part
def first_compartment(n_masks):
    """Return the number of the first compartment: nucleus (0), cell (1), cytoplasm (2); of one mask only the last.

    A compartment has the part of the same number, and the next one.
    """
    return 0 if n_masks == 2 else N_PARTS - 1
