"""Measure the shape of a mask, as ``skimage.measure.regionprops`` does."""

import math
from typing import Any

import numpy as np

from cellstamp.cells.kernels.bit_rows import count_ones, n_words, new_bits, shifted_left, shifted_right
from cellstamp.cells.kernels.hull import hull_area
from cellstamp.compiling.decorators import compiled_part

N_SHAPE = 15
"""Numbers that `measure_shape` writes."""


@compiled_part
def measure_shape(bits, area, box, runs, part, corner, scratch, out):
    """Measure the shape of one mask.

    Parameters
    ----------
    bits, area
        The mask, see `cellstamp.cells.kernels.bit_rows`.
    box
        Its bounding box in the window: first row, end of rows, and the same of columns. Empty: no pixel.
    runs, part
        The pixels of the mask: runs of this part and the next one, see `cellstamp.cells.kernels.parts`.
    corner
        First row and column of the window in the image.
    scratch
        From `new_shape_scratch`.
    out
        float64 (`N_SHAPE`,), written: area, perimeter, major and minor axis, eccentricity, orientation, extent,
        equivalent diameter, solidity, box (first row, first column, end of rows, end of columns), centroid (y, x).
        Without pixels, the area is 0, all others are NaN.
    """
    border, ends, chain = scratch
    (top, left), height, width = corner, box[1] - box[0], box[3] - box[2]
    if height == 0:
        for k in range(N_SHAPE):
            out[k] = math.nan
        out[0] = 0.0
        return
    n, (y, x), (rest_y, rest_x), var_y, var_x, covariance = moments(runs, part)
    out[0] = n
    out[1] = perimeter(bits, area, box, border)
    middle, spread = (var_y + var_x) / 2, math.hypot((var_y - var_x) / 2, covariance)
    long, short = middle + spread, max(middle - spread, 0.0)
    out[2], out[3] = 4 * math.sqrt(long), 4 * math.sqrt(short)
    out[4] = math.sqrt(1 - short / long) if long > 0 else 0.0
    out[5] = orientation(var_y, var_x, covariance)
    out[6] = n / (height * width)
    out[7] = math.sqrt(4 * n / math.pi)
    list_ends(runs, part, box, ends)
    out[8] = n / hull_area(width, ends[:, :height], chain)
    out[9], out[10], out[11], out[12] = top + box[0], left + box[2], top + box[1], left + box[3]
    # integers first: the result must not depend on the window
    out[13], out[14] = (top + y) + rest_y, (left + x) + rest_x


@compiled_part
def moments(runs, part):
    """Return area, centroid (y, x) as integers and their rest, variances (y, x) and covariance of the pixels.

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
    return n, (y0, x0), (rest_y, rest_x), var_y, var_x, covariance


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
def perimeter(bits, area, box, border):
    """Return the length of the line through the centres of the border pixels.

    A border pixel has a background pixel above, below, left or right of it. Its share of the line follows from the
    number of border pixels next to it. Source: K. Benkrid, D. Crookes, "Design and FPGA implementation of a perimeter
    estimator" (2000).

    ``border`` is scratch like ``bits``.
    """
    width = n_words(area)
    border[box[0], : width + 2] = 0
    border[box[1] + 1, : width + 2] = 0
    for y in range(box[0] + 1, box[1] + 1):
        above, row, below, out = bits[y - 1], bits[y], bits[y + 1], border[y]
        out[0] = out[width + 1] = 0
        for j in range(1, width + 1):
            out[j] = row[j] & ~(above[j] & below[j] & shifted_right(row, j) & shifted_left(row, j))
    straight = diagonal = mixed = np.uint64(0)
    for y in range(box[0] + 1, box[1] + 1):
        for j in range(1, width + 1):
            if border[y, j]:
                s, d, m = count_kinds(border[y - 1], border[y], border[y + 1], j)
                straight, diagonal, mixed = straight + s, diagonal + d, mixed + m
    return straight + diagonal * math.sqrt(2.0) + mixed * (1 + math.sqrt(2.0)) / 2


@compiled_part
def count_kinds(above, row, below, j):
    """Count straight, diagonal and mixed pixels of the border in a word.

    Each bit adds up the neighbours of its pixel: at the sides, and at the corners.
    """
    sides, two_sides, four_sides = add_four(above[j], below[j], shifted_right(row, j), shifted_left(row, j))
    upper, lower = (shifted_right(above, j), shifted_left(above, j)), (shifted_right(below, j), shifted_left(below, j))
    corners, two_corners, four_corners = add_four(upper[0], upper[1], lower[0], lower[1])
    no_side = ~(sides | two_sides | four_sides)
    one_side = sides & ~two_sides
    # two or three sides, and at most two corners
    straight = two_sides & ~four_corners & ~(corners & two_corners)
    # two corners, or three and a side
    diagonal = two_corners & ((no_side & ~corners) | (one_side & corners))
    # a side, and one or two corners
    mixed = one_side & (corners ^ two_corners)
    own = row[j]
    return count_ones(own & straight), count_ones(own & diagonal), count_ones(own & mixed)


@compiled_part
def add_four(a, b, c, d):
    """Return the bits of a + b + c + d for each bit: ones, twos and fours."""
    ab, cd = a ^ b, c ^ d
    both_ab, both_cd = a & b, c & d
    return ab ^ cd, (both_ab ^ both_cd) | (ab & cd), both_ab & both_cd


def new_shape_scratch(size: int) -> tuple[Any, ...]:
    """Allocate the working memory of `measure_shape` for windows of at most ``size`` pixels a side."""
    return new_bits(1, size)[0], np.empty((2, size), np.int64), np.empty((2 * size + 1, 2), np.int64)
