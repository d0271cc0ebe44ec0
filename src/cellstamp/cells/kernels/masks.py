"""Cut one cell out of a mask: find its pixels, fill its holes, blur it."""

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
def cut_mask(labels, top, left, size, cell_id, weights, scratch, blurred, box):
    """Cut one mask: find the cell, fill its holes inside the window, blur it.

    Parameters
    ----------
    labels, top, left, size, cell_id
        See `find_cell`.
    weights
        float64 (5,), see `gaussian_weights`.
    scratch
        See `new_scratch`.
    blurred
        float64 (size, size); written inside the box only.
    box
        int64 (4,); the box of everything that is not 0. Empty (all 0) for a cell without pixels here.

    Returns
    -------
    bool
        Whether the cell has a pixel on the window's edge, and so may continue outside.
    """
    mask, words, gaps, padded, half = scratch
    if not find_cell(labels, top, left, size, cell_id, mask, words, box):
        return False
    on_edge = box[0] == 0 or box[1] == size or box[2] == 0 or box[3] == size
    cell = mask[box[0] : box[1], box[2] : box[3]]
    fill_holes(cell, gaps)
    y0, x0 = box[0], box[2]
    grow_box(box, size)
    pad_mask(cell, y0, x0, box, size, padded)
    blur_mask(padded, half, weights, box, blurred)
    return on_edge
