"""Load or compile kernels before the first batch: loading takes a second, compiling about ten."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from cellstamp.compiling.cache_folders import USUAL, Types, is_kept, note_kept


def load_kernels(types: Types = USUAL) -> None:
    """Load or compile the kernels for these types by running them on a tiny image; keep the code for later runs."""
    from cellstamp.encoding import StampEncoder
    from cellstamp.source.read.runs import sum_runs

    stamps, boxes = cut_tiny_image(types, None)
    encoder = StampEncoder("lzf", planes_per_chunk=2)
    encoder.encode(stamps, boxes, np.empty(encoder.room(1, 2, stamps[0, 0].nbytes), np.uint8))
    sum_runs(np.ones(stamps.shape[2:], np.int64), 0, 0)
    if not is_kept(types):
        note_kept(types)


def cut_tiny_image(types: Types, measuring: tuple[Any, ...] | None) -> tuple[NDArray[Any], NDArray[np.int64]]:
    """Cut a cell of 2 x 2 pixels, and measure it if it is asked for; return its planes and their boxes."""
    from cellstamp.cells.kernels.crops import cut_stamps, new_scratch
    from cellstamp.source.outlines import NO_OUTLINES

    size = 2
    labels = np.ones((1, size, size), types.labels)
    image = np.ones((1, size, size), types.image)
    stamps, boxes = np.zeros((1, 2, size, size), types.in_memory), np.zeros((1, 2, 4), np.int64)
    ids, corner, on_edge = np.ones(1, types.labels), np.zeros(1, np.int64), np.zeros(1, np.bool_)
    outlines = (np.zeros(1, np.int64), np.zeros(2, np.int64), NO_OUTLINES.arrays)
    how = (True, True, np.array([[0.0, 1.0]]), 1.0)
    results = stamps, boxes, on_edge, measuring
    cut_stamps(labels, image, ids, corner, corner, outlines, how, *results, new_scratch(1, size))
    return stamps, boxes
