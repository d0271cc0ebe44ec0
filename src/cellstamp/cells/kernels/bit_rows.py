"""Masks as rows of bits: words of 64 pixels, on which loops take a tenth of the time of loops over bytes.

The words of all masks of a cell cover the same area (`area_of`): rows of a window, and columns from a multiple of 8.
Row y of the window is row y + 1 of the words, and the first 64 columns are word 1. A frame of zeros around the area
stands for the background: a row above and below it, and a word at the left and right.
"""

from typing import Any

import numpy as np
from numba import types
from numba.core import cgutils
from numba.extending import intrinsic
from numpy.typing import NDArray

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


@compiled_part
def area_of(boxes):
    """Return the area around the bounding boxes of masks, which are 0 for empty masks.

    Returns
    -------
    tuple of int
        First row, end of rows, and the same of columns in units of eight.
    """
    top = bottom = left = right = 0
    for m in range(boxes.shape[0]):
        box = boxes[m]
        if bottom == 0:
            top, bottom, left, right = box[0], box[1], box[2], box[3]
        elif box[1] > 0:
            top, bottom = min(top, box[0]), max(bottom, box[1])
            left, right = min(left, box[2]), max(right, box[3])
    return top, bottom, left // 8, (right + 7) // 8


@compiled_part
def n_words(area):
    """Return the number of words in a row of an area, without the frame."""
    return (area[3] - area[2] + 7) // 8


@compiled_part
def pack_masks(words, area, packed):
    """Write the bits of a cell's masks in an area, and zeros around it.

    Parameters
    ----------
    words
        uint64 (n_masks, >= rows, >= columns / 8): the masks' bytes, 0 or 1, eight in a word.
    area
        See `area_of`.
    packed
        uint64 (n_masks, >= rows + 2, >= words + 2), written.
    """
    width = n_words(area)
    for m in range(packed.shape[0]):
        mask, bits = words[m], packed[m]
        bits[area[0], : width + 2] = 0
        bits[area[1] + 1, : width + 2] = 0
        for y in range(area[0], area[1]):
            row, out = mask[y, area[2] : area[3]], bits[y + 1]
            out[: width + 2] = 0
            for k in range(row.size):
                out[1 + k // 8] |= (row[k] * _GATHER >> _BYTE) << np.uint64(8 * (k % 8))


@compiled_part
def shifted_right(row, j):
    """Return a word of a row shifted by a pixel: bit k is pixel k - 1."""
    return row[j] << _ONE | row[j - 1] >> _HIGHEST


@compiled_part
def shifted_left(row, j):
    """Return a word of a row shifted by a pixel: bit k is pixel k + 1."""
    return row[j] >> _ONE | row[j + 1] << _HIGHEST


def new_bits(n_masks: int, size: int) -> NDArray[np.uint64]:
    """Allocate the bits of masks in a window of at most ``size`` pixels a side, uint64 (n_masks, rows, words)."""
    return np.zeros((n_masks, size + 2, -(-size // PIXELS) + 2), np.uint64)
