"""Measure the shape of a mask, as ``skimage.measure.regionprops`` does."""

import math
from typing import Any

import numpy as np

from cellstamp.cells.kernels.boxes import copy_row
from cellstamp.cells.kernels.hull import hull_area
from cellstamp.compiling.decorators import compiled_part

N_SHAPE = 15
"""Numbers that `measure_shape` writes."""

_VECTOR = 32
"""Bytes of a vector."""


@compiled_part
def measure_shape(cell, box, runs, part, top, left, scratch, out):
    """Measure the shape of one mask.

    Parameters
    ----------
    cell, box
        uint8 (height, width), 0 or 1: the mask in its bounding box; and this box in the window. Empty: no pixel.
    runs, part
        The pixels of the mask: runs of this part and the next one, see `cellstamp.cells.kernels.parts`.
    top, left
        First row and column of the window in the image.
    scratch
        From `new_shape_scratch`.
    out
        float64 (`N_SHAPE`,), written: area, perimeter, major and minor axis, eccentricity, orientation, extent,
        equivalent diameter, solidity, box (first row, first column, end of rows, end of columns), centroid (y, x).
        Without pixels, the area is 0, all others are NaN.
    """
    of_border, ends, chain = scratch
    height, width = cell.shape
    if height == 0:
        for k in range(N_SHAPE):
            out[k] = math.nan
        out[0] = 0.0
        return
    area, y, x, var_y, var_x, covariance = moments(runs, part)
    out[0] = area
    out[1] = perimeter(cell, of_border)
    middle, spread = (var_y + var_x) / 2, math.hypot((var_y - var_x) / 2, covariance)
    long, short = middle + spread, max(middle - spread, 0.0)
    out[2], out[3] = 4 * math.sqrt(long), 4 * math.sqrt(short)
    out[4] = math.sqrt(1 - short / long) if long > 0 else 0.0
    out[5] = orientation(var_y, var_x, covariance)
    out[6] = area / (height * width)
    out[7] = math.sqrt(4 * area / math.pi)
    list_ends(runs, part, box, ends)
    out[8] = area / hull_area(width, ends[:, :height], chain)
    out[9], out[10], out[11], out[12] = top + box[0], left + box[2], top + box[1], left + box[3]
    out[13], out[14] = top + y, left + x


@compiled_part
def moments(runs, part):
    """Return area, centroid (y, x), variances (y, x) and covariance of the pixels.

    Sums are those of integers. Before they are divided, they are moved to the pixel next to the centroid, so that
    nothing cancels.
    """
    n = sum_y = sum_x = sum_yy = sum_xx = sum_xy = 0
    for k in range(runs.shape[0]):
        if runs[k, 3] != part and runs[k, 3] != part + 1:
            continue
        y, x, end = runs[k, 0], runs[k, 1], runs[k, 2]
        count = end - x
        # sums of the columns and of their squares
        along = (x + end - 1) * count // 2
        squares = ((end - 1) * end * (2 * end - 1) - (x - 1) * x * (2 * x - 1)) // 6
        n, sum_y, sum_yy = n + count, sum_y + y * count, sum_yy + y * y * count
        sum_x, sum_xx, sum_xy = sum_x + along, sum_xx + squares, sum_xy + y * along
    y0, x0 = sum_y // n, sum_x // n
    rest_y, rest_x = (sum_y - n * y0) / n, (sum_x - n * x0) / n
    var_y = (sum_yy - 2 * y0 * sum_y + n * y0 * y0) / n - rest_y * rest_y
    var_x = (sum_xx - 2 * x0 * sum_x + n * x0 * x0) / n - rest_x * rest_x
    covariance = (sum_xy - y0 * sum_x - x0 * sum_y + n * y0 * x0) / n - rest_y * rest_x
    return n, y0 + rest_y, x0 + rest_x, var_y, var_x, covariance


@compiled_part
def list_ends(runs, part, box, ends):
    """Write the first and the last column of each row of a mask, each counted from the other end; see `hull_area`."""
    left, right = ends[0], ends[1]
    width = box[3] - box[2]
    for y in range(box[1] - box[0]):
        left[y] = right[y] = -1
    for k in range(runs.shape[0]):
        if runs[k, 3] == part or runs[k, 3] == part + 1:
            y = runs[k, 0] - box[0]
            # runs of a row are in order
            if left[y] < 0:
                left[y] = width - 1 - (runs[k, 1] - box[2])
            right[y] = runs[k, 2] - 1 - box[2]


@compiled_part
def orientation(var_y, var_x, covariance):
    """Return the angle between the rows' axis and the major axis, from -pi/2 to pi/2."""
    if var_x == var_y:
        return math.pi / 4 if covariance > 0 else -math.pi / 4
    return 0.5 * math.atan2(2 * covariance, var_y - var_x)


@compiled_part
def perimeter(cell, scratch):
    """Return the length of the line through the centres of the border pixels.

    A border pixel has a background pixel above, below, left or right of it. Its share of the line follows from the
    number of border pixels next to it. Source: K. Benkrid, D. Crookes, "Design and FPGA implementation of a perimeter
    estimator" (2000).

    Loops have no branches and no remainder, so that the compiler uses vectors of bytes.
    """
    frame, border, kinds, counts = scratch
    height, width = cell.shape
    end = -(-width // _VECTOR) * _VECTOR
    frame_mask(cell, end, frame)
    for y in range(1, height + 1):
        above, row, below, out = frame[y - 1], frame[y], frame[y + 1], border[y]
        for x in range(1, 1 + end):
            out[x] = row[x] ^ (row[x] & above[x] & below[x] & row[x - 1] & row[x + 1])
        out[end + 1] = 0
    border[0, : end + 2], border[height + 1, : end + 2] = 0, 0
    counts[:, :end] = 0
    for y in range(1, height + 1):
        list_kinds(border[y - 1], border[y], border[y + 1], kinds, end)
        count_kinds(kinds, counts, end)
    straight = diagonal = mixed = 0
    for x in range(end):
        straight, diagonal, mixed = straight + counts[0, x], diagonal + counts[1, x], mixed + counts[2, x]
    return straight + diagonal * math.sqrt(2.0) + mixed * (1 + math.sqrt(2.0)) / 2


@compiled_part
def frame_mask(cell, end, frame):
    """Copy a mask into a frame of background, which continues to a width of ``end``."""
    height, width = cell.shape
    for y in range(height + 2):
        row = frame[y]
        for x in range(end + 2):
            row[x] = 0
    for y in range(height):
        copy_row(cell[y], frame[y + 1, 1 : width + 1])


@compiled_part
def list_kinds(above, row, below, kinds, end):
    """Write 1 + neighbours at the sides + 8 x neighbours at the corners for pixels on the border, 0 for others."""
    for x in range(end):
        sides = above[x + 1] + below[x + 1] + row[x] + row[x + 2]
        corners = above[x] + above[x + 2] + below[x] + below[x + 2]
        kinds[x] = row[x + 1] * (1 + sides + 8 * corners)


@compiled_part
def count_kinds(kinds, counts, end):
    """Count straight, diagonal and mixed pixels in each column."""
    for x in range(end):
        kind = kinds[x]
        # at most two corners, and two or three sides
        counts[0, x] += (kind == 3) | (kind == 4) | (kind == 11) | (kind == 12) | (kind == 19) | (kind == 20)
        # two corners, or three and a side
        counts[1, x] += (kind == 17) | (kind == 26)
        # one or two corners, and a side
        counts[2, x] += (kind == 10) | (kind == 18)


def new_shape_scratch(size: int) -> tuple[Any, ...]:
    """Allocate the working memory of `measure_shape` for windows of at most ``size`` pixels a side."""
    end = -(-size // _VECTOR) * _VECTOR
    frame = np.zeros((size + 2, end + 2), np.uint8)
    of_border = frame, frame.copy(), np.zeros(end, np.uint8), np.zeros((3, end), np.uint16)
    return of_border, np.empty((2, size), np.int64), np.empty((2 * size + 1, 2), np.int64)
