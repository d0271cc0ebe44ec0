"""Sample pixels at the positions of an affine transformation; compiled.

A position is in pixels of the sampled array: pixel i covers [i, i + 1).
"""

import math
from typing import Any

import numpy as np

from cellstamp.compiling.decorators import compiled

EDGE = 1e-9
"""Positions less than this before a border of pixels, in pixels, are on it: rounding errors must not decide."""


@compiled
def take_nearest(window: Any, corner: Any, way: Any, first: Any, out: Any) -> None:
    """Copy the pixels that contain the positions of the centres of a grid's pixels.

    Parameters
    ----------
    window
        (c, y, x): pixels around all positions.
    corner
        int64 (2,): row and column of its first pixel in the sampled array.
    way
        float64 (2, 3): from the grid to pixels of the sampled array, for (y, x, 1).
    first
        int64 (2,): row and column of the first pixel of `out` in the grid.
    out
        (c, y, x), of the window's dtype. Unchanged where the sampled array has no pixel.
    """
    for i in range(out.shape[1]):
        y = first[0] + i + 0.5
        for j in range(out.shape[2]):
            x = first[1] + j + 0.5
            row = math.floor(way[0, 0] * y + way[0, 1] * x + way[0, 2] + EDGE) - corner[0]
            column = math.floor(way[1, 0] * y + way[1, 1] * x + way[1, 2] + EDGE) - corner[1]
            if 0 <= row < window.shape[1] and 0 <= column < window.shape[2]:
                for k in range(out.shape[0]):
                    out[k, i, j] = window[k, row, column]


@compiled
def blend(window: Any, corner: Any, sides: Any, way: Any, first: Any, to_integers: bool, out: Any) -> None:  # noqa: FBT001 - compiled functions take positional arguments
    """Interpolate between the four nearest centres of pixels; see `take_nearest`.

    Parameters
    ----------
    sides
        int64 (2,): height and width of the sampled array.
    to_integers
        Whether values are rounded.
    """
    for i in range(out.shape[1]):
        y = first[0] + i + 0.5
        for j in range(out.shape[2]):
            x = first[1] + j + 0.5
            row = way[0, 0] * y + way[0, 1] * x + way[0, 2]
            column = way[1, 0] * y + way[1, 1] * x + way[1, 2]
            if not (0 <= row + EDGE < sides[0] and 0 <= column + EDGE < sides[1]):
                continue
            above, left = math.floor(row - 0.5), math.floor(column - 0.5)
            down, right = row - 0.5 - above, column - 0.5 - left
            top, bottom = max(above, 0) - corner[0], min(above + 1, sides[0] - 1) - corner[0]
            begin, end = max(left, 0) - corner[1], min(left + 1, sides[1] - 1) - corner[1]
            for k in range(out.shape[0]):
                upper = window[k, top, begin] * (1 - right) + window[k, top, end] * right
                lower = window[k, bottom, begin] * (1 - right) + window[k, bottom, end] * right
                value = upper * (1 - down) + lower * down
                out[k, i, j] = np.rint(value) if to_integers else value


@compiled
def weigh(
    window: Any,
    at_rows: Any,
    of_rows: Any,
    at_columns: Any,
    of_columns: Any,
    to_integers: bool,  # noqa: FBT001 - compiled functions take positional arguments
    out: Any,
) -> None:
    """Write weighted means of rows and columns of pixels.

    Parameters
    ----------
    window
        (c, y, x): pixels.
    at_rows, of_rows
        int64, float64 (n_rows, k): rows of the window for each row of `out`, and their weights. Weights of 0 are
        skipped; a row with no other ones is unchanged.
    at_columns, of_columns
        The same for columns.
    to_integers
        Whether values are rounded.
    out
        (c, n_rows, n_columns).
    """
    line = np.empty(window.shape[2], np.float64)
    for k in range(out.shape[0]):
        for i in range(out.shape[1]):
            line[:] = 0
            height = 0.0
            for a in range(of_rows.shape[1]):
                weight = of_rows[i, a]
                if weight > 0:
                    height += weight
                    for x in range(window.shape[2]):
                        line[x] += weight * window[k, at_rows[i, a], x]
            for j in range(out.shape[2]):
                value, width = 0.0, 0.0
                for b in range(of_columns.shape[1]):
                    weight = of_columns[j, b]
                    if weight > 0:
                        width += weight
                        value += weight * line[at_columns[j, b]]
                if height * width > 0:
                    value /= height * width
                    out[k, i, j] = np.rint(value) if to_integers else value
