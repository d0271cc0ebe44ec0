"""Cut the planes of several cells out of one block of masks and image. The entry to all kernels."""

from typing import Any

import numpy as np

from cellstamp.cells.kernels.blur import BLUR_RADIUS, gaussian_weights
from cellstamp.cells.kernels.boxes import clear_box, copy_row, list_box
from cellstamp.cells.kernels.masks import blur_cell, find_mask, new_mask_scratch
from cellstamp.cells.kernels.measure import boxes_of, measure_cell
from cellstamp.cells.kernels.quantiles import FEW, normalise, rescale
from cellstamp.cells.kernels.rounding import store_plane
from cellstamp.compiling.decorators import compiled, compiled_part


@compiled
def cut_stamps(labels, image, ids, tops, lefts, outlines, how, stamps, boxes, on_edge, measuring, scratch):
    """Cut the single-cell images of several cells out of one block of masks and image.

    Parameters
    ----------
    labels
        uint32 or uint64 (n_label_masks, Y, X).
    image
        Integer or float (n_channels, Y, X), not negative, the same area.
    ids, tops, lefts
        (n_cells,): cell ids in the dtype of ``labels``, and the upper left corner (int64) of each window in the block.
    outlines
        ``planes, corner, drawn``: for each mask, its plane in ``labels``, or -1 - k: the mask is drawn, and cell i is
        cell k * n_cells + i of ``drawn``; the last mask is the cell mask. int64 (2,): row and column of the block in
        the image. See `cellstamp.cells.kernels.outlines.draw_cell`.
    how
        ``apply_masks, per_cell, limits, levels``: whether channels are multiplied by the blurred cell mask; whether
        ``limits`` (float64 (n_channels, 2), lower and upper) are quantiles of each window, or values; and the stored
        value of 1: the largest value of an integer type, or 1.0 for floats.
    stamps
        (>= n_cells, n_masks + n_channels, size, size): float32, uint8, or uint16; uint16 with levels of 1 takes the
        bits of float16 values. Zero outside ``boxes``, when given as well as when returned.
    boxes
        int64 (>= n_cells, n_masks + n_channels, 4): the boxes of the planes in ``stamps``, replaced by the new ones.
    on_edge
        bool (>= n_cells,), written: whether the cell mask has a pixel on the window's edge.
    measuring
        As that of `cellstamp.cells.kernels.measure.measure_cells`: cells are measured, too. Their masks have just been
        found, and their pixels are in the processor's cache. None: they are not.
    scratch
        See `new_scratch`.
    """
    apply_masks, per_cell, limits, levels = how
    masks, words, masking, blurred, values, bits, halves, work, weights = scratch
    planes, corner, _ = outlines
    n_masks, size = planes.size, stamps.shape[2]
    for i in range(ids.size):
        for p in range(stamps.shape[1]):
            clear_box(stamps[i, p], boxes[i, p])
        box = boxes[i, 0]
        for m in range(n_masks):
            box, window = boxes[i, m], (tops[i], lefts[i], size, size)
            find_mask(labels, ids, i, planes[m], outlines, window, masks[m], words[m], box)
            if measuring is not None:
                copy_row(box, boxes_of(measuring)[m])
            on_edge[i] = blur_cell(masks[m], size, weights, masking, blurred, box)
            list_box(blurred, box, values)
            store_plane(values, bits, halves, levels, box, stamps[i, m])
        for c in range(image.shape[0]):
            own = boxes[i, n_masks + c]
            if apply_masks:
                copy_row(box, own)
                count = cut_channel(image[c], tops[i], lefts[i], blurred, box, values)
            else:
                own[0], own[1], own[2], own[3] = 0, size, 0, size
                count = copy_channel(image[c], tops[i], lefts[i], size, values)
            if per_cell:
                normalise(values, count, size * size, limits[c, 0], limits[c, 1], work)
            else:
                rescale(values, count, limits[c, 0], limits[c, 1])
            store_plane(values, bits, halves, levels, own, stamps[i, n_masks + c])
        if measuring is not None:
            measure_cell(words, image, corner, i, measuring)


@compiled_part
def cut_channel(image, top, left, blurred, box, values):
    """Multiply one channel by the blurred cell mask.

    Parameters
    ----------
    image
        Integer or float (Y, X), not negative.
    blurred, box
        From `blur_cell`.
    values
        float64 (>= box height * box width,); written row by row, without gaps.

    Returns
    -------
    int
        The number of values written.
    """
    width = box[3] - box[2]
    count = 0
    for y in range(box[0], box[1]):
        pixels = image[top + y, left + box[2] : left + box[3]]
        weight = blurred[y, box[2] : box[3]]
        out = values[count : count + width]
        for x in range(width):
            out[x] = pixels[x] * weight[x]
        count += width
    return count


@compiled_part
def copy_channel(image, top, left, size, values):
    """List the unchanged pixels of a window, row by row; parameters as in `cut_channel`."""
    for y in range(size):
        copy_row(image[top + y, left : left + size], values[y * size : (y + 1) * size])
    return size * size


def new_scratch(n_masks: int, size: int) -> tuple[Any, ...]:
    """Allocate the working memory of `cut_stamps` for windows of ``size`` pixels; one per thread."""
    frame = size + 2 * BLUR_RADIUS
    masks, words, gaps = new_mask_scratch(n_masks, size)
    masking = gaps, np.empty((frame, frame)), np.empty(frame)
    values = np.empty(size * size)
    halves = np.empty(size * size, np.uint16)
    work = np.empty(size * size + 2 * FEW)
    return (
        masks,
        words,
        masking,
        np.empty((size, size)),
        values,
        values.view(np.uint64),
        halves,
        work,
        gaussian_weights(),
    )
