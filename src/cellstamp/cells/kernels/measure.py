"""Measure the features of cells, alone or while they are cut. The entry to the kernels of features."""

from typing import Any

import numpy as np

from cellstamp.cells.kernels.bit_rows import area_of, new_bits, pack_masks
from cellstamp.cells.kernels.counted import MOST_COUNTED, measure_counted, new_count_scratch
from cellstamp.cells.kernels.holes import fill_holes
from cellstamp.cells.kernels.intensity import N_INTENSITY, measure_sorted, new_sort_scratch, sort_parts
from cellstamp.cells.kernels.masks import find_mask
from cellstamp.cells.kernels.parts import N_PARTS, first_compartment, list_runs, list_values
from cellstamp.cells.kernels.shape import N_SHAPE, measure_shape, new_shape_scratch
from cellstamp.compiling.decorators import compiled, compiled_part


@compiled
def measure_cells(labels, image, ids, outlines, measuring, masking):
    """Measure cells on the pixels of their masks, with holes filled.

    Parameters
    ----------
    labels
        uint32 or uint64 (n_label_masks, Y, X).
    image
        (n_channels, Y, X), the same area.
    ids
        (n_cells,), in the dtype of ``labels``.
    outlines
        As those of `cellstamp.cells.kernels.crops.cut_stamps`.
    measuring
        ``windows, groups, kinds, out, is_cut, is_empty, scratch``:

        - int64 (n_cells, 8): first row and column of each window in the block, its height and width, and whether the
          image continues above, below, left and right of it;
        - whether shapes are measured, and whether intensities are;
        - whether the image has integers of at most 16 bits, and whether it has integers;
        - float64 (n_cells, n_features), written; see `n_measured`;
        - bool (n_cells, n_masks), written: whether each mask touches an edge of the window beyond which the image
          continues;
        - bool (n_cells, n_masks), written: whether each mask has no pixel in the window;
        - see `new_scratch`.
    masking
        From `cellstamp.cells.kernels.masks.new_mask_scratch`.
    """
    for i in range(ids.size):
        find_masks(labels, ids, i, measuring[0][i], outlines, boxes_of(measuring), masking)
        measure_cell(masking[1], image, outlines[1], i, measuring)


@compiled
def find_cell_masks(labels, ids, windows, outlines, boxes, masking):
    """Write the masks of the first cell to the scratch; parameters as in `measure_cells`.

    ``boxes``, int64 (n_masks, 4), are written: the bounding box of each mask in the window.
    """
    find_masks(labels, ids, 0, windows[0], outlines, boxes, masking)


@compiled_part
def find_masks(labels, ids, number, window, outlines, boxes, masking):
    """Find or draw all masks of a cell in a window, and fill their holes."""
    planes = outlines[0]
    masks, words, gaps = masking
    where = window[0], window[1], window[2], window[3]
    for m in range(planes.size):
        mask, box = masks[m], boxes[m]
        find_mask(labels, ids, number, planes[m], outlines, where, mask, words[m], box)
        if box[1] > 0:
            fill_holes(mask[box[0] : box[1], box[2] : box[3]], gaps)


@compiled_part
def measure_cell(words, image, corner, number, measuring):
    """Measure the masks of one cell.

    Parameters
    ----------
    words
        uint64 (n_masks, rows, columns / 8): the masks with holes filled, a byte a pixel, in the window. Their boxes are
        those of `boxes_of`.
    image, measuring
        As those of `measure_cells`.
    corner
        int64 (2,): row and column of the block in the image.
    number
        Number of the cell.
    """
    windows, groups, kinds, every_out, is_cut, is_empty, scratch = measuring
    (shapes, intensities), window, out = groups, windows[number], every_out[number]
    boxes, bits, runs, ends, of_shapes, of_values = scratch
    n_masks, area = boxes.shape[0], area_of(boxes)
    pack_masks(words, area, bits)
    for m in range(n_masks):
        is_cut[number, m], is_empty[number, m] = is_cut_off(boxes[m], window), boxes[m, 1] == 0
    every = runs[: list_runs(bits, area, runs, ends)]
    top, left = window[0], window[1]
    at = 0
    if shapes:
        for m in range(n_masks):
            part, own = first_compartment(n_masks) + m, out[at : at + N_SHAPE]
            corner_of_window = corner[0] + top, corner[1] + left
            measure_shape(bits[m], area, boxes[m], every, part, corner_of_window, of_shapes, own)
            at += N_SHAPE
        if n_masks == 2:
            of_cell = out[N_SHAPE]
            out[at] = out[0] / of_cell if of_cell > 0 else np.nan
            at += 1
    if intensities:
        measure_channels(image, top, left, n_masks, every, ends, kinds, out[at:], of_values)


@compiled_part
def boxes_of(measuring):
    """Return where the boxes of the masks must be that `measure_cell` measures, int64 (n_masks, 4)."""
    return measuring[6][0]


@compiled_part
def is_cut_off(box, window):
    """Whether a mask touches an edge of its window beyond which the image continues."""
    if box[1] == 0:
        return False
    above, below = box[0] == 0 and window[4] != 0, box[1] == window[2] and window[5] != 0
    return above or below or (box[2] == 0 and window[6] != 0) or (box[3] == window[3] and window[7] != 0)


@compiled_part
def measure_channels(image, top, left, n_masks, runs, ends, kinds, out, scratch):
    """Measure the values of all channels in the compartments of a cell."""
    counted, integers = kinds
    values, counting, sorting = scratch
    n_channels, height, width = image.shape
    pixels, start = image.reshape((n_channels, height * width)), top * width + left
    per_channel = out.reshape((n_channels, out.size // (n_channels * N_INTENSITY), N_INTENSITY))
    list_values(pixels, start, width, runs, ends, values)
    for c in range(n_channels):
        if counted and ends[N_PARTS - 1] <= MOST_COUNTED:
            measure_counted(values[c], ends, n_masks, per_channel[c], counting)
        else:
            sort_parts(values[c], ends, integers, sorting)
            measure_sorted(sorting[0], ends, n_masks, per_channel[c])


def n_measured(n_masks: int, n_channels: int, *, shapes: bool, intensities: bool) -> int:
    """Return the number of features that `measure_cells` writes for a cell.

    For each mask those of `measure_shape`, with two masks the ratio of their areas, and for each channel and
    compartment those of `measure_values`. Compartments are the mask, or nucleus, cell and cytoplasm.
    """
    compartments = 3 if n_masks == 2 else 1
    of_shape = n_masks * N_SHAPE + (n_masks == 2)
    return shapes * of_shape + intensities * n_channels * compartments * N_INTENSITY


def new_scratch(n_masks: int, n_channels: int, size: int, dtype: Any) -> tuple[Any, ...]:
    """Allocate the working memory of `measure_cell` for windows of at most ``size`` pixels a side; one per thread.

    ``dtype`` is that of the image.
    """
    n_pixels = size * size
    of_values = np.empty((n_channels, n_pixels), dtype), new_count_scratch(n_pixels), new_sort_scratch(n_pixels)
    boxes, bits, runs = np.zeros((n_masks, 4), np.int64), new_bits(n_masks, size), np.empty((n_pixels, 4), np.int64)
    return boxes, bits, runs, np.empty(N_PARTS, np.int64), new_shape_scratch(size), of_values


def kinds_of(dtype: Any) -> tuple[bool, bool]:
    """Return the ``kinds`` of an image's data type."""
    is_integer = np.dtype(dtype).kind in "iu"
    return is_integer and np.dtype(dtype).itemsize <= 2, is_integer
