"""Make the mask of one cell in its window: find its pixels in labels, fill its holes, blur it."""

import numpy as np

from cellstamp.cells.kernels.blur import blur_mask, grow_box, pad_mask
from cellstamp.cells.kernels.holes import fill_holes
from cellstamp.compiling.decorators import compiled_part


@compiled_part
def find_cell(labels, top, left, size, cell_id, mask, words, box):
    """Write ``labels == cell_id`` inside the window to ``mask``, and its bounding box to ``box``.

    Parameters
    ----------
    labels
        Unsigned integer (Y, X).
    top, left, size
        The window: ``labels[top:top + size, left:left + size]``. Box coordinates are relative to it.
    cell_id
        Scalar of the dtype of ``labels``.
    mask
        uint8 (size, size rounded up to a multiple of 8), written; columns beyond ``size`` must be 0.
    words
        The memory of ``mask`` seen as uint64, eight pixels a word.
    box
        int64 (4,), written; empty (all 0) if the cell has no pixel here.

    Returns
    -------
    bool
        Whether the cell has a pixel in the window.
    """
    columns = words[size]
    columns[:] = 0
    first, last = size, -1
    for y in range(size):
        row = labels[top + y, left : left + size]
        out = mask[y]
        for x in range(size):
            out[x] = row[x] == cell_id
        seen = np.uint64(0)
        for k in range(columns.size):
            seen |= words[y, k]
        if seen:
            first = min(first, y)
            last = y
            for k in range(columns.size):
                columns[k] |= words[y, k]
    return narrow_box(mask, first, last, size, box)


@compiled_part
def bound_cell(mask, words, size, box):
    """Write the bounding box of a mask that has been drawn; parameters and result as in `find_cell`."""
    columns = words[size]
    columns[:] = 0
    first, last = size, -1
    for y in range(size):
        seen = np.uint64(0)
        for k in range(columns.size):
            seen |= words[y, k]
            columns[k] |= words[y, k]
        if seen:
            first = min(first, y)
            last = y
    return narrow_box(mask, first, last, size, box)


@compiled_part
def narrow_box(mask, first, last, size, box):
    """Write the box of the rows from ``first`` to ``last``, and of the columns in use, to ``box``."""
    if last < 0:
        box[:] = 0
        return False
    box[0], box[1], box[2], box[3] = first, last + 1, 0, size
    while mask[size, box[2]] == 0:
        box[2] += 1
    while mask[size, box[3] - 1] == 0:
        box[3] -= 1
    return True


@compiled_part
def blur_cell(size, weights, scratch, blurred, box):
    """Fill the holes of a cell's mask inside the window, and blur it.

    Parameters
    ----------
    size
        Side of the window.
    weights
        float64 (5,), see `gaussian_weights`.
    scratch
        See `new_scratch`; its mask has the cell.
    blurred
        float64 (size, size); written inside the box only.
    box
        int64 (4,): the box of the mask; replaced by the box of everything that is not 0. Empty (all 0): no pixel.

    Returns
    -------
    bool
        Whether the cell has a pixel on the window's edge, and so may continue outside.
    """
    mask, _, gaps, padded, half = scratch
    if box[1] == 0:
        return False
    on_edge = box[0] == 0 or box[1] == size or box[2] == 0 or box[3] == size
    cell = mask[box[0] : box[1], box[2] : box[3]]
    fill_holes(cell, gaps)
    y0, x0 = box[0], box[2]
    grow_box(box, size)
    pad_mask(cell, y0, x0, box, size, padded)
    blur_mask(padded, half, weights, box, blurred)
    return on_edge
