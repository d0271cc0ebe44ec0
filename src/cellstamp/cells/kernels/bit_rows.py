"""Masks as rows of bits: words of 64 pixels, on which loops take a tenth of the time of loops over bytes.

The words of a mask cover its area (`cellstamp.cells.kernels.measure.area_of`): rows of a window, and columns from a
multiple of 8. Row y of the window is row y + 1 of the words, and the first 64 columns are word 1. A frame of zeros
around the area stands for the background: a row above and below it, and a word at the left and right.
"""

from typing import Any

import numpy as np
from numba import types
from numba.core import cgutils
from numba.extending import intrinsic

from cellstamp.compiling.decorators import compiled_part

PIXELS = 64
"""Pixels in a word. The first one is the lowest bit."""

_GATHER = np.uint64(0x0102040810204080)
"""Multiplied by a word of eight bytes, each 0 or 1, the highest byte has these as bits, the first one lowest."""
_ONE, _HIGHEST, _BYTE = np.uint64(1), np.uint64(63), np.uint64(56)


def _of_word(instruction: str, *flags: Any) -> Any:
    """Return a compiled function of a uint64 that is one instruction of LLVM."""

    @intrinsic
    def function(typing: Any, word: Any) -> Any:
        del typing, word

        def build(context: Any, builder: Any, signature: Any, args: Any) -> Any:
            del context, signature
            return getattr(builder, instruction)(args[0], *flags)

        return types.uint64(types.uint64), build

    return function


count_ones = _of_word("ctpop")
"""Return the number of ones in a uint64."""
place_of_first = _of_word("cttz", cgutils.true_bit)
"""Return the place of the lowest one in a uint64, from 0; it must have one."""
_zeros_above_last = _of_word("ctlz", cgutils.true_bit)


@compiled_part
def place_of_last(word):
    """Return the place of the highest one in a uint64, from 0; it must have one."""
    return _HIGHEST - _zeros_above_last(word)


@compiled_part
def n_words(area):
    """Return the number of words in a row of an area, without the frame."""
    return (area[3] - area[2] + 7) // 8


@compiled_part
def pack_mask(mask, area, bits):
    """Write the bits of an area of a mask, and zeros around it.

    Parameters
    ----------
    mask
        uint64 (>= rows, >= columns / 8): the mask's bytes, 0 or 1, eight in a word.
    area
        First row, end of rows, and the same of columns in units of eight.
    bits
        uint64 (>= rows + 2, >= words + 2), written.
    """
    width = n_words(area)
    bits[area[0], : width + 2] = 0
    bits[area[1] + 1, : width + 2] = 0
    for y in range(area[0], area[1]):
        row, out = mask[y, area[2] : area[3]], bits[y + 1]
        out[: width + 2] = 0
        for k in range(row.size):
            out[1 + k // 8] |= (row[k] * _GATHER >> _BYTE) << np.uint64(8 * (k % 8))


@compiled_part
def bound_bits(bits, area, box):
    """Write the bounding box of a mask in the window: first row, end of rows, and the same of columns; or zeros."""
    box[:] = 0
    width = n_words(area)
    left, right = -1, -1
    for j in range(1, width + 1):
        used = np.uint64(0)
        for y in range(area[0] + 1, area[1] + 1):
            used |= bits[y, j]
        if used:
            start = 8 * area[2] + PIXELS * (j - 1)
            left = start + np.int64(place_of_first(used)) if left < 0 else left
            right = start + np.int64(place_of_last(used))
    if left < 0:
        return
    first, last = area[0], area[1] - 1
    while is_empty(bits[first + 1], width):
        first += 1
    while is_empty(bits[last + 1], width):
        last -= 1
    box[0], box[1], box[2], box[3] = first, last + 1, left, right + 1


@compiled_part
def is_empty(row, width):
    """Whether a row has no pixel."""
    seen = np.uint64(0)
    for j in range(1, width + 1):
        seen |= row[j]
    return seen == 0


@compiled_part
def has_gaps(bits, area):
    """Whether a row has background between two pixels of the mask: without one there can be no hole."""
    width = n_words(area)
    for y in range(area[0] + 1, area[1] + 1):
        row = bits[y]
        n_runs = np.uint64(0)
        for j in range(1, width + 1):
            n_runs += count_ones(row[j] & ~shifted_right(row, j))
        if n_runs > 1:
            return True
    return False


@compiled_part
def shifted_right(row, j):
    """Return a word of a row shifted by a pixel: bit k is pixel k - 1."""
    return row[j] << _ONE | row[j - 1] >> _HIGHEST


@compiled_part
def shifted_left(row, j):
    """Return a word of a row shifted by a pixel: bit k is pixel k + 1."""
    return row[j] >> _ONE | row[j + 1] << _HIGHEST


def new_bits(n_masks: int, size: int) -> np.ndarray[Any, np.dtype[np.uint64]]:
    """Allocate the bits of masks in a window of at most ``size`` pixels a side, uint64 (n_masks, rows, words)."""
    # the area begins at a multiple of 8, so that it may be a word wider
    return np.zeros((n_masks, size + 2, size // PIXELS + 4), np.uint64)
