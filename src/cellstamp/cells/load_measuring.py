"""Load or compile the kernels of features before the first batch."""

from __future__ import annotations

import numpy as np

from cellstamp.cells.load_kernels import cut_tiny_image
from cellstamp.cells.task import MeasuringTypes
from cellstamp.compiling.cache_folders import is_kept, note_kept


def load_measuring(types: MeasuringTypes, *, cutting: bool = True) -> None:
    """Load the kernels for these types that measure cells while they are cut, or alone; compile both, and keep them.

    If both are kept, the other one is loaded when it is needed: for cells that are larger than their crops, functions,
    and textures.
    """
    from cellstamp.cells.kernels.masks import new_mask_scratch
    from cellstamp.cells.kernels.measure import find_cell_masks, kinds_of, measure_cells, n_measured, new_scratch
    from cellstamp.source.outlines import NO_OUTLINES

    size, compiling = 2, not is_kept(types)
    out, seen = np.empty((1, n_measured(1, 1, shapes=True, intensities=True))), np.zeros((1, 1), np.bool_)
    windows, scratch = np.array([[0, 0, size, size, 0, 0, 0, 0]]), new_scratch(1, 1, size, types.image)
    measuring = (windows, (True, True), kinds_of(types.image), out, seen, seen.copy(), scratch)
    if cutting or compiling:
        cut_tiny_image(types.of_crops, measuring)
    if cutting and not compiling:
        return
    labels, image = np.ones((1, size, size), types.labels), np.ones((1, size, size), types.image)
    ids, masking = np.ones(1, types.labels), new_mask_scratch(1, size)
    outlines = (np.zeros(1, np.int64), np.zeros(2, np.int64), NO_OUTLINES.arrays)
    measure_cells(labels, image, ids, outlines, measuring, masking)
    if compiling:
        find_cell_masks(labels, ids, windows, outlines, scratch[0], masking)
        note_kept(types)
