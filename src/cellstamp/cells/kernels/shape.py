"""Measure the shape of a mask, as ``skimage.measure.regionprops`` does."""

import math

from cellstamp.cells.kernels.boxes import copy_row
from cellstamp.cells.kernels.hull import hull_area
from cellstamp.compiling.decorators import compiled_part

N_SHAPE = 15
"""Numbers that `measure_shape` writes."""


@compiled_part
def measure_shape(cell, top, left, border, ends, chain, out):
    """Measure the shape of one mask.

    Parameters
    ----------
    cell
        uint8 (height, width), 0 or 1: the mask's bounding box; empty: no pixel.
    top, left
        First row and column of this box in the image.
    border, ends, chain
        Scratch: uint8 (>= height + 2, >= width + 2), and see `hull_area`.
    out
        float64 (`N_SHAPE`,), written: area, perimeter, major and minor axis, eccentricity, orientation, extent,
        equivalent diameter, solidity, box (first row, first column, end of rows, end of columns), centroid (y, x).
        Without pixels, the area is 0, all others are NaN.
    """
    height, width = cell.shape
    if height == 0:
        for k in range(N_SHAPE):
            out[k] = math.nan
        out[0] = 0.0
        return
    area, y, x, var_y, var_x, covariance = moments(cell)
    out[0] = area
    out[1] = perimeter(cell, border)
    middle, spread = (var_y + var_x) / 2, math.hypot((var_y - var_x) / 2, covariance)
    long, short = middle + spread, max(middle - spread, 0.0)
    out[2], out[3] = 4 * math.sqrt(long), 4 * math.sqrt(short)
    out[4] = math.sqrt(1 - short / long) if long > 0 else 0.0
    out[5] = orientation(var_y, var_x, covariance)
    out[6] = area / (height * width)
    out[7] = math.sqrt(4 * area / math.pi)
    out[8] = area / hull_area(cell, ends, chain)
    out[9], out[10], out[11], out[12] = top, left, top + height, left + width
    out[13], out[14] = top + y, left + x


@compiled_part
def moments(cell):
    """Return area, centroid (y, x), variances (y, x) and covariance of the pixels.

    Sums are those of integers. Before they are divided, they are moved to the pixel next to the centroid, so that
    nothing cancels.
    """
    n = sum_y = sum_x = sum_yy = sum_xx = sum_xy = 0
    for y in range(cell.shape[0]):
        row = cell[y]
        count = along = squares = 0
        for x in range(row.size):
            count += row[x]
            along += row[x] * x
            squares += row[x] * x * x
        n, sum_y, sum_yy = n + count, sum_y + y * count, sum_yy + y * y * count
        sum_x, sum_xx, sum_xy = sum_x + along, sum_xx + squares, sum_xy + y * along
    y0, x0 = sum_y // n, sum_x // n
    rest_y, rest_x = (sum_y - n * y0) / n, (sum_x - n * x0) / n
    var_y = (sum_yy - 2 * y0 * sum_y + n * y0 * y0) / n - rest_y * rest_y
    var_x = (sum_xx - 2 * x0 * sum_x + n * x0 * x0) / n - rest_x * rest_x
    covariance = (sum_xy - y0 * sum_x - x0 * sum_y + n * y0 * x0) / n - rest_y * rest_x
    return n, y0 + rest_y, x0 + rest_x, var_y, var_x, covariance


@compiled_part
def orientation(var_y, var_x, covariance):
    """Return the angle between the rows' axis and the major axis, from -pi/2 to pi/2."""
    if var_x == var_y:
        return math.pi / 4 if covariance > 0 else -math.pi / 4
    return 0.5 * math.atan2(2 * covariance, var_y - var_x)


@compiled_part
def perimeter(cell, border):
    """Return the length of the line through the centres of the border pixels.

    A border pixel has a background pixel above, below, left or right of it. Its share of the line follows from the
    number of border pixels next to it. Source: K. Benkrid, D. Crookes, "Design and FPGA implementation of a perimeter
    estimator" (2000).
    """
    height, width = cell.shape
    mark_border(cell, border)
    straight = diagonal = mixed = 0
    for y in range(1, height + 1):
        above, row, below = border[y - 1], border[y], border[y + 1]
        for x in range(1, width + 1):
            if row[x] == 0:
                continue
            sides = above[x] + below[x] + row[x - 1] + row[x + 1]
            corners = above[x - 1] + above[x + 1] + below[x - 1] + below[x + 1]
            if corners <= 2 and (sides == 2 or sides == 3):
                straight += 1
            elif (sides == 0 and corners == 2) or (sides == 1 and corners == 3):
                diagonal += 1
            elif sides == 1 and (corners == 1 or corners == 2):
                mixed += 1
    return straight + diagonal * math.sqrt(2.0) + mixed * (1 + math.sqrt(2.0)) / 2


@compiled_part
def mark_border(cell, border):
    """Write the border pixels into a frame that is one pixel wider than the mask; all others are 0."""
    height, width = cell.shape
    for y in range(height + 2):
        row = border[y]
        for x in range(width + 2):
            row[x] = 0
    for y in range(height):
        row, out = cell[y], border[y + 1, 1:]
        copy_row(row, out[:width])
        if y == 0 or y == height - 1:
            continue
        above, below = cell[y - 1], cell[y + 1]
        for x in range(1, width - 1):
            out[x] ^= row[x] & above[x] & below[x] & row[x - 1] & row[x + 1]
