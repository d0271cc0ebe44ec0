"""Blur a mask with a Gaussian of sigma 1 pixel."""

import numpy as np
from numpy.typing import NDArray

from cellstamp.cells.kernels.boxes import copy_row
from cellstamp.compiling.decorators import compiled_part

BLUR_RADIUS = 4
"""Pixels that a Gaussian of sigma 1, truncated at 4 sigma, reaches."""


def gaussian_weights() -> NDArray[np.float64]:
    """Centre and one-sided weights of a Gaussian of sigma 1, truncated at 4 sigma and scaled to a sum of 1.

    Returns
    -------
    numpy.ndarray
        float64 (5,): the weight of the centre pixel, then those of its neighbours at distance 1 to 4.
    """
    x = np.arange(-BLUR_RADIUS, BLUR_RADIUS + 1)
    phi = np.exp(-0.5 * x**2)
    weights: NDArray[np.float64] = (phi / phi.sum())[BLUR_RADIUS:].copy()
    return weights


@compiled_part
def grow_box(box, size):
    """Grow the box by the blur radius, inside the window."""
    box[0] = max(box[0] - BLUR_RADIUS, 0)
    box[1] = min(box[1] + BLUR_RADIUS, size)
    box[2] = max(box[2] - BLUR_RADIUS, 0)
    box[3] = min(box[3] + BLUR_RADIUS, size)


@compiled_part
def pad_mask(cell, y0, x0, box, size, padded):
    """Copy the mask into a float frame one blur radius wider than the box, repeating the window's edge pixels."""
    height, width = cell.shape
    columns = box[3] - box[2] + 2 * BLUR_RADIUS
    shift = x0 - box[2] + BLUR_RADIUS
    for r in range(box[1] - box[0] + 2 * BLUR_RADIUS):
        y = min(max(box[0] - BLUR_RADIUS + r, 0), size - 1) - y0
        if y < 0 or y >= height:
            padded[r, :columns] = 0.0
            continue
        padded[r, :shift] = cell[y, 0] if x0 == 0 else 0
        copy_row(cell[y], padded[r, shift : shift + width])
        padded[r, shift + width : columns] = cell[y, width - 1] if x0 + width == size else 0


@compiled_part
def blur_mask(padded, half, weights, box, blurred):
    """Gaussian along y, then along x, adding the taps from the outside in, as ``scipy.ndimage.correlate1d`` does."""
    w0, w1, w2, w3, w4 = weights[0], weights[1], weights[2], weights[3], weights[4]
    # slices, so that the inner loops index with their counter only: the compiler turns such loops into vector code
    width = box[3] - box[2]
    b0, b1, b2, b3, b4 = half[0:], half[1:], half[2:], half[3:], half[4:]
    b5, b6, b7, b8 = half[5:], half[6:], half[7:], half[8:]
    for y in range(box[1] - box[0]):
        a = padded[y : y + 2 * BLUR_RADIUS + 1]
        for x in range(width + 2 * BLUR_RADIUS):
            value = a[4, x] * w0
            value += (a[0, x] + a[8, x]) * w4
            value += (a[1, x] + a[7, x]) * w3
            value += (a[2, x] + a[6, x]) * w2
            half[x] = value + (a[3, x] + a[5, x]) * w1
        out = blurred[box[0] + y, box[2] : box[3]]
        for x in range(width):
            value = b4[x] * w0
            value += (b0[x] + b8[x]) * w4
            value += (b1[x] + b7[x]) * w3
            value += (b2[x] + b6[x]) * w2
            out[x] = value + (b3[x] + b5[x]) * w1
