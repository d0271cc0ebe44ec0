"""Measure the features of several cells in one block of masks and image. The entry to the kernels of features."""

from typing import Any

import numpy as np

from cellstamp.cells.kernels.bit_rows import bound_bits, has_gaps, new_bits, pack_mask
from cellstamp.cells.kernels.counted import MOST_COUNTED, measure_counted, new_count_scratch
from cellstamp.cells.kernels.holes import fill_holes
from cellstamp.cells.kernels.intensity import N_INTENSITY, measure_sorted, new_sort_scratch, sort_parts
from cellstamp.cells.kernels.outlines import draw_cell
from cellstamp.cells.kernels.parts import N_PARTS, first_compartment, list_runs, list_values
from cellstamp.cells.kernels.shape import N_SHAPE, measure_shape, new_shape_scratch
from cellstamp.compiling.decorators import compiled, compiled_part


@compiled
def measure_cells(labels, image, ids, windows, search, outlines, groups, kinds, out, is_cut, is_empty, scratch):
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
    search
        int64 (n_cells, n_masks, 4): a box in the window with all pixels of each mask; it may extend beyond the window.
        First row, end of rows, first column, end of columns. Without pixels, the end of rows is not positive.
    outlines
        As those of `cellstamp.cells.kernels.crops.cut_stamps`.
    groups
        Whether shapes are measured, and whether intensities are.
    kinds
        Whether the image has integers of at most 16 bits, and whether it has integers.
    out
        float64 (n_cells, n_features), written; see `n_measured`.
    is_cut
        bool (n_cells,), written: whether a mask touches an edge of the window beyond which the image continues.
    is_empty
        bool (n_cells, n_masks), written: whether each mask has no pixel in the window.
    scratch
        See `new_scratch`.
    """
    shapes, intensities = groups
    corner, bits, boxes, runs, ends = outlines[1], scratch[2], scratch[3], scratch[5], scratch[6]
    n_masks = bits.shape[0]
    for i in range(ids.size):
        area = area_of(search[i], windows[i])
        is_cut[i] = find_masks(labels, ids, i, windows[i], area, outlines, scratch)
        every = runs[: list_runs(bits, area, runs, ends)]
        top, left = windows[i, 0], windows[i, 1]
        at = 0
        for m in range(n_masks):
            is_empty[i, m] = boxes[m, 1] == 0
        if shapes:
            for m in range(n_masks):
                part, own = first_compartment(n_masks) + m, out[i, at : at + N_SHAPE]
                corner_of_window = corner[0] + top, corner[1] + left
                measure_shape(bits[m], area, boxes[m], every, part, corner_of_window, scratch[7], own)
                at += N_SHAPE
            if n_masks == 2:
                area = out[i, N_SHAPE]
                out[i, at] = out[i, 0] / area if area > 0 else np.nan
                at += 1
        if intensities:
            measure_channels(image, top, left, every, kinds, out[i, at:], scratch)


@compiled_part
def measure_channels(image, top, left, runs, kinds, out, scratch):
    """Measure the values of all channels in the compartments of a cell."""
    counted, integers = kinds
    n_masks, ends, values, sorting = scratch[0].shape[0], scratch[6], scratch[8], scratch[10]
    n_channels, height, width = image.shape
    pixels, start = image.reshape((n_channels, height * width)), top * width + left
    per_channel = out.reshape((n_channels, out.size // (n_channels * N_INTENSITY), N_INTENSITY))
    for c in range(n_channels):
        list_values(pixels[c], start, width, runs, ends, values)
        if counted and ends[N_PARTS - 1] <= MOST_COUNTED:
            measure_counted(values, ends, n_masks, per_channel[c], scratch[9])
        else:
            sort_parts(values, ends, integers, sorting)
            measure_sorted(sorting[0], ends, n_masks, per_channel[c])


@compiled
def find_cell_masks(labels, ids, windows, search, outlines, scratch):
    """Write the masks of the first cell, and their boxes, to the scratch; parameters as in `measure_cells`."""
    find_masks(labels, ids, 0, windows[0], area_of(search[0], windows[0]), outlines, scratch)


@compiled_part
def find_masks(labels, ids, number, window, area, outlines, scratch):
    """Find or draw all masks of a cell in a window, and fill their holes; return whether the window cuts one off.

    Masks and their bits are valid inside the area, see `area_of`.
    """
    planes, corner, drawn = outlines
    masks, words, bits, boxes, gaps = scratch[:5]
    top, left, height, width = window[0], window[1], window[2], window[3]
    is_cut = False
    for m in range(masks.shape[0]):
        mask, box = masks[m], boxes[m]
        if planes[m] >= 0:
            copy_cell(labels[planes[m]], top, left, width, ids[number], area, mask)
        else:
            size = max(height, width)
            draw_cell(drawn, (-1 - planes[m]) * ids.size + number, corner[0] + top, corner[1] + left, size, mask)
        clear_beyond(mask, area, width)
        pack_mask(words[m], area, bits[m])
        bound_bits(bits[m], area, box)
        if box[1] > 0:
            is_cut |= (box[0] == 0 and window[4] != 0) or (box[1] == height and window[5] != 0)
            is_cut |= (box[2] == 0 and window[6] != 0) or (box[3] == width and window[7] != 0)
            if has_gaps(bits[m], area):
                fill_holes(mask[box[0] : box[1], box[2] : box[3]], gaps)
                pack_mask(words[m], area, bits[m])
    return is_cut


@compiled_part
def area_of(search, window):
    """Return the part of a window that has all masks: first row, end of rows, and the same of columns in words of 8."""
    first, end, first_column, end_column = around(search)
    height, width = window[2], window[3]
    return max(first, 0), min(end, height), max(first_column, 0) // 8, (min(end_column, width) + 7) // 8


@compiled_part
def copy_cell(labels, top, left, width, cell_id, area, mask):
    """Write ``labels == cell_id`` to an area of the mask: rows, and words of eight columns."""
    first, end = 8 * area[2], min(8 * area[3], width)
    for y in range(area[0], area[1]):
        row, out = labels[top + y, left + first : left + end], mask[y, first:end]
        for x in range(out.size):
            out[x] = row[x] == cell_id


@compiled_part
def clear_beyond(mask, area, width):
    """Clear the columns of an area beyond the window, which is smaller at the border of the image."""
    for y in range(area[0], area[1]):
        for x in range(width, 8 * area[3]):
            mask[y, x] = 0


@compiled_part
def around(boxes):
    """Return the box around all boxes that are not empty: first row, end of rows, first column, end of columns."""
    top = bottom = left = right = 0
    for m in range(boxes.shape[0]):
        box = boxes[m]
        if bottom <= 0:
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


def new_scratch(n_masks: int, size: int, dtype: Any) -> tuple[Any, ...]:
    """Allocate the working memory of `measure_cells` for windows of at most ``size`` pixels a side; one per thread.

    ``dtype`` is that of the image.
    """
    masks = np.zeros((n_masks, size, -(-size // 8) * 8), np.uint8)
    return (
        masks,
        masks.view(np.uint64),
        new_bits(n_masks, size),
        np.zeros((n_masks, 4), np.int64),
        np.empty((size * size // 2 + 1, 3), np.int64),
        np.empty((size * size, 4), np.int64),
        np.empty(N_PARTS, np.int64),
        new_shape_scratch(size),
        np.empty(size * size, dtype),
        new_count_scratch(size * size),
        new_sort_scratch(size * size),
    )


def kinds_of(dtype: Any) -> tuple[bool, bool]:
    """Return the ``kinds`` of an image's data type."""
    is_integer = np.dtype(dtype).kind in "iu"
    return is_integer and np.dtype(dtype).itemsize <= 2, is_integer
