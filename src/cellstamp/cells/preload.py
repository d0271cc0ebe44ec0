"""Imported by the server that workers are forked from: loads what they need, compiled kernels included, once."""

import numpy as np
import zarr

from cellstamp.cells.kernels import cut_stamps, new_scratch
from cellstamp.codecs import StampEncoder


def load_kernels() -> None:
    """Run the kernels for the usual types on a tiny image: compiled code is then in memory before there are workers."""
    size = 2
    labels = np.ones((1, size, size), np.uint32)
    image = np.ones((1, size, size), np.uint16)
    stamps, boxes = np.zeros((1, 2, size, size), np.uint16), np.zeros((1, 2, 4), np.int64)
    ids, corner = np.ones(1, np.uint32), np.zeros(1, np.int64)
    cut_stamps(labels, image, ids, corner, corner, np.array([0.0, 1.0]), 1.0, stamps, boxes, new_scratch(size))
    encoder = StampEncoder("lzf")
    encoder.encode(stamps, boxes, np.empty(encoder.room(2, size), np.uint8))


load_kernels()
# workers share the cores among themselves: a second thread to decode chunks would only take turns with the first
zarr.config.set({"threading.max_workers": 1})
