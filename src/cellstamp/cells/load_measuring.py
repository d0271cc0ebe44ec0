"""Load or compile the kernels of features before the first batch."""

from __future__ import annotations

import numpy as np

from cellstamp.cells.task import MeasuringTypes
from cellstamp.compiling.cache_folders import is_kept, note_kept


def load_measuring(types: MeasuringTypes) -> None:
    """Load or compile the kernels for these types by measuring a tiny image; keep the code for later runs."""
    from cellstamp.cells.kernels.measure import find_cell_masks, kinds_of, measure_cells, n_measured, new_scratch
    from cellstamp.source.outlines import NO_OUTLINES

    size = 2
    labels, image = np.ones((1, size, size), types.labels), np.ones((1, size, size), types.image)
    ids, windows = np.ones(1, types.labels), np.array([[0, 0, size, size, 0, 0, 0, 0]])
    search = np.array([[[0, size, 0, size]]])
    outlines = (np.zeros(1, np.int64), np.zeros(2, np.int64), NO_OUTLINES.arrays)
    out, is_cut = np.empty((1, n_measured(1, 1, shapes=True, intensities=True))), np.zeros(1, np.bool_)
    scratch = new_scratch(1, size, types.image)
    groups = (True, True), kinds_of(types.image)
    measure_cells(labels, image, ids, windows, search, outlines, *groups, out, is_cut, is_cut[None], scratch)
    if not is_kept(types):
        # for functions and textures only: they load it when they need it
        find_cell_masks(labels, ids, windows, search, outlines, scratch)
        note_kept(types)
