"""Measure the features of several cells in one block of masks and image. The entry to the kernels of features."""

from typing import Any

import numpy as np

from cellstamp.cells.kernels.holes import fill_holes
from cellstamp.cells.kernels.intensity import N_INTENSITY, list_pixels, measure_values, read_sorted, sums_of
from cellstamp.cells.kernels.masks import bound_cell
from cellstamp.cells.kernels.outlines import draw_cell
from cellstamp.cells.kernels.shape import N_SHAPE, measure_shape
from cellstamp.compiling.decorators import compiled, compiled_part


@compiled
def measure_cells(labels, image, ids, windows, outlines, groups, out, is_cut, scratch):
    """Measure cells on the pixels of their masks, with holes filled.

    Parameters
    ----------
    labels
        uint32 or uint64 (n_label_masks, Y, X).
    image
        (n_channels, Y, X), the same area.
    ids
        (n_cells,), in the dtype of ``labels``.
    windows
        int64 (n_cells, 8): first row and column of each window in the block, its height and width, and whether the
        image continues above, below, left and right of it.
    outlines
        As those of `cellstamp.cells.kernels.crops.cut_stamps`.
    groups
        Whether shapes are measured, whether intensities are, and whether the image has integers.
    out
        float64 (n_cells, n_features), written; see `n_measured`.
    is_cut
        bool (n_cells,), written: whether a mask touches an edge of the window beyond which the image continues.
    scratch
        See `new_scratch`.
    """
    shapes, intensities, integers = groups
    corner = outlines[1]
    masks, boxes, border, ends, chain = scratch[0], scratch[2], scratch[4], scratch[5], scratch[6]
    n_masks = masks.shape[0]
    for i in range(ids.size):
        top, left = windows[i, 0], windows[i, 1]
        is_cut[i] = find_masks(labels, ids, i, windows[i], outlines, scratch)
        at = 0
        if shapes:
            for m in range(n_masks):
                box = boxes[m]
                cell = masks[m, box[0] : box[1], box[2] : box[3]]
                y, x = corner[0] + top + box[0], corner[1] + left + box[2]
                measure_shape(cell, y, x, border, ends, chain, out[i, at : at + N_SHAPE])
                at += N_SHAPE
            if n_masks == 2:
                area = out[i, N_SHAPE]
                out[i, at] = out[i, 0] / area if area > 0 else np.nan
                at += 1
        if intensities:
            measure_channels(image, top, left, integers, out[i, at:], scratch)


@compiled_part
def measure_channels(image, top, left, integers, out, scratch):
    """Measure the values of all channels in the compartments of a cell, of which the scratch has the masks."""
    masks, boxes, places, values, bits = scratch[0], scratch[2], scratch[7], scratch[8], scratch[9]
    spare, counts = scratch[10], scratch[11]
    n_channels, height, width = image.shape
    rows = image.reshape((n_channels, height * width))
    first, second, end = list_pixels(masks, around(boxes), top * width + left, width, places)
    at = 0
    for c in range(n_channels):
        for start, stop in ((0, first), (first, second), (second, end)):
            read_sorted(rows[c], places[start:stop], integers, values[start:stop], (bits[start:stop], spare, counts))
        one, both, other, none = values[:first], values[first:second], values[second:end], values[:0]
        of_one, of_both, of_other, of_none = sums_of(one), sums_of(both), sums_of(other), sums_of(none)
        if masks.shape[0] == 2:
            measure_values(one, of_one, both, of_both, out[at : at + N_INTENSITY])
            measure_values(both, of_both, other, of_other, out[at + N_INTENSITY : at + 2 * N_INTENSITY])
            at += 2 * N_INTENSITY
        # of the cell without the nucleus, or of the only mask
        measure_values(other, of_other, none, of_none, out[at : at + N_INTENSITY])
        at += N_INTENSITY


@compiled
def find_cell_masks(labels, ids, windows, outlines, scratch):
    """Write the masks of the first cell, and their boxes, to the scratch; parameters as in `measure_cells`."""
    find_masks(labels, ids, 0, windows[0], outlines, scratch)


@compiled_part
def find_masks(labels, ids, number, window, outlines, scratch):
    """Find or draw all masks of a cell in a window, and fill their holes; return whether the window cuts one off."""
    planes, corner, drawn = outlines
    masks, words, boxes, gaps = scratch[:4]
    top, left, height, width = window[0], window[1], window[2], window[3]
    size = max(height, width)
    is_cut = False
    for m in range(masks.shape[0]):
        mask, box = masks[m], boxes[m]
        if planes[m] >= 0:
            copy_cell(labels[planes[m]], top, left, height, width, ids[number], mask)
        else:
            draw_cell(drawn, (-1 - planes[m]) * ids.size + number, corner[0] + top, corner[1] + left, size, mask)
        clear_outside(mask, height, width, size)
        bound_cell(mask, words[m], size, box)
        if box[1] > 0:
            is_cut |= (box[0] == 0 and window[4] != 0) or (box[1] == height and window[5] != 0)
            is_cut |= (box[2] == 0 and window[6] != 0) or (box[3] == width and window[7] != 0)
            fill_holes(mask[box[0] : box[1], box[2] : box[3]], gaps)
    return is_cut


@compiled_part
def copy_cell(labels, top, left, height, width, cell_id, mask):
    """Write ``labels == cell_id`` in the window to the mask."""
    for y in range(height):
        row, out = labels[top + y, left : left + width], mask[y]
        for x in range(width):
            out[x] = row[x] == cell_id


@compiled_part
def clear_outside(mask, height, width, size):
    """Clear what a square mask has outside of the window, which is smaller at the border of the image."""
    for y in range(size):
        row = mask[y]
        for x in range(width if y < height else 0, size):
            row[x] = 0


@compiled_part
def around(boxes):
    """Return the box around all boxes that are not empty: first row, end of rows, first column, end of columns."""
    top, bottom, left, right = boxes[0, 0], boxes[0, 1], boxes[0, 2], boxes[0, 3]
    for m in range(1, boxes.shape[0]):
        box = boxes[m]
        if bottom == 0:
            top, bottom, left, right = box[0], box[1], box[2], box[3]
        elif box[1] > 0:
            top, bottom = min(top, box[0]), max(bottom, box[1])
            left, right = min(left, box[2]), max(right, box[3])
    return top, bottom, left, right


def n_measured(n_masks: int, n_channels: int, *, shapes: bool, intensities: bool) -> int:
    """Return the number of features that `measure_cells` writes for a cell.

    For each mask those of `measure_shape`, with two masks the ratio of their areas, and for each channel and
    compartment those of `measure_values`. Compartments are the mask, or nucleus, cell and cytoplasm.
    """
    compartments = 3 if n_masks == 2 else 1
    of_shape = n_masks * N_SHAPE + (n_masks == 2)
    return shapes * of_shape + intensities * n_channels * compartments * N_INTENSITY


def new_scratch(n_masks: int, size: int) -> tuple[Any, ...]:
    """Allocate the working memory of `measure_cells` for windows of at most ``size`` pixels a side; one per thread."""
    # one row more than the window: the columns in use
    masks = np.zeros((n_masks, size + 1, -(-size // 8) * 8), np.uint8)
    gaps = np.empty((size * size // 2 + 1, 3), np.int64)
    values = np.empty(size * size)
    return (
        masks,
        masks.view(np.uint64),
        np.zeros((n_masks, 4), np.int64),
        gaps,
        np.zeros((size + 2, size + 2), np.uint8),
        np.empty((2, size), np.int64),
        np.empty((2 * size + 1, 2), np.int64),
        np.empty(size * size + 1, np.int64),
        values,
        values.view(np.uint64),
        np.empty(size * size, np.uint64),
        np.empty(256, np.int64),
    )
