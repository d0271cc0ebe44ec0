"""Compiled kernels in memory before there is work for them: they take a second to load, and more to compile."""

import numpy as np


def load_kernels() -> None:
    """Run the kernels for the usual types on a tiny image: compiled code is then in memory."""
    from cellstamp.cells.kernels import cut_stamps, new_scratch
    from cellstamp.codecs import StampEncoder

    size = 2
    labels = np.ones((1, size, size), np.uint32)
    image = np.ones((1, size, size), np.uint16)
    stamps, boxes = np.zeros((1, 2, size, size), np.uint16), np.zeros((1, 2, 4), np.int64)
    ids, corner, on_edge = np.ones(1, np.uint32), np.zeros(1, np.int64), np.zeros(1, np.bool_)
    how = (True, True, np.array([[0.0, 1.0]]), 1.0)
    cut_stamps(labels, image, ids, corner, corner, how, stamps, boxes, on_edge, new_scratch(size))
    encoder = StampEncoder("lzf")
    encoder.encode(stamps, boxes, np.empty(encoder.room(2, 2 * size * size), np.uint8))
