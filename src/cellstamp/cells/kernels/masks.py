"""Make the mask of one cell in its window: find its pixels in labels, fill its holes, blur it."""

from typing import Any

import numpy as np

from cellstamp.cells.kernels.blur import blur_mask, grow_box, pad_mask
from cellstamp.cells.kernels.holes import fill_holes
from cellstamp.cells.kernels.outlines import draw_cell
from cellstamp.compiling.decorators import compiled_part


@compiled_part
def find_mask(labels, ids, number, plane, outlines, window, mask, words, box):
    """Find a mask of a cell in labels, or draw it, and write its bounding box.

    Parameters
    ----------
    labels, ids, outlines
        As those of `cellstamp.cells.kernels.crops.cut_stamps`.
    number
        Number of the cell.
    plane
        Where the mask is, from ``outlines``.
    window
        First row and column in the block, height and width.
    mask, words, box
        As those of `find_cell`.
    """
    _, corner, drawn = outlines
    top, left, height, width = window
    if plane >= 0:
        find_cell(labels[plane], top, left, height, width, ids[number], mask, words, box)
    else:
        cell = (-1 - plane) * ids.size + number
        draw_cell(drawn, cell, corner[0] + top, corner[1] + left, max(height, width), mask)
        bound_cell(mask, words, height, width, box)


@compiled_part
def find_cell(labels, top, left, height, width, cell_id, mask, words, box):
    """Write ``labels == cell_id`` inside the window to ``mask``, and its bounding box to ``box``.

    Parameters
    ----------
    labels
        Unsigned integer (Y, X).
    top, left, height, width
        The window: ``labels[top:top + height, left:left + width]``. Box coordinates are relative to it.
    cell_id
        Scalar of the dtype of ``labels``.
    mask
        uint8 (> height, width rounded up to a multiple of 8, or more), written. The last row is scratch.
    words
        The memory of ``mask`` seen as uint64, eight pixels a word.
    box
        int64 (4,), written; empty (all 0) if the cell has no pixel here.
    """
    columns = words[words.shape[0] - 1, : (width + 7) // 8]
    columns[:] = 0
    first, last = height, -1
    for y in range(height):
        row = labels[top + y, left : left + width]
        out = mask[y]
        for x in range(width):
            out[x] = row[x] == cell_id
        for x in range(width, 8 * columns.size):
            out[x] = 0
        seen = np.uint64(0)
        for k in range(columns.size):
            seen |= words[y, k]
        if seen:
            first = min(first, y)
            last = y
            for k in range(columns.size):
                columns[k] |= words[y, k]
    narrow_box(mask, first, last, width, box)


@compiled_part
def bound_cell(mask, words, height, width, box):
    """Clear a mask that has been drawn next to the window, and write its bounding box; parameters as in `find_cell`."""
    columns = words[words.shape[0] - 1, : (width + 7) // 8]
    columns[:] = 0
    first, last = height, -1
    for y in range(height):
        for x in range(width, 8 * columns.size):
            mask[y, x] = 0
        seen = np.uint64(0)
        for k in range(columns.size):
            seen |= words[y, k]
            columns[k] |= words[y, k]
        if seen:
            first = min(first, y)
            last = y
    narrow_box(mask, first, last, width, box)


@compiled_part
def narrow_box(mask, first, last, width, box):
    """Write the box of the rows from ``first`` to ``last``, and of the columns in use, to ``box``."""
    if last < 0:
        box[:] = 0
        return
    columns = mask[mask.shape[0] - 1]
    box[0], box[1], box[2], box[3] = first, last + 1, 0, width
    while columns[box[2]] == 0:
        box[2] += 1
    while columns[box[3] - 1] == 0:
        box[3] -= 1


@compiled_part
def blur_cell(mask, size, weights, scratch, blurred, box):
    """Fill the holes of a cell's mask inside the window, and blur it.

    Parameters
    ----------
    mask
        From `find_cell`; its holes are filled.
    size
        Side of the window.
    weights
        float64 (5,), see `gaussian_weights`.
    scratch
        See `cellstamp.cells.kernels.crops.new_scratch`.
    blurred
        float64 (size, size); written inside the box only.
    box
        int64 (4,): the box of the mask; replaced by the box of everything that is not 0. Empty (all 0): no pixel.

    Returns
    -------
    bool
        Whether the cell has a pixel on the window's edge, and so may continue outside.
    """
    gaps, padded, half = scratch
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


def new_mask_scratch(n_masks: int, size: int) -> tuple[Any, ...]:
    """Allocate masks of windows of at most ``size`` pixels a side, the same as words, and scratch of `fill_holes`."""
    # one row more than the window: the columns in use
    masks = np.zeros((n_masks, size + 1, -(-size // 8) * 8), np.uint8)
    return masks, masks.view(np.uint64), np.empty((size * size // 2 + 1, 3), np.int64)
