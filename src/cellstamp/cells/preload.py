"""Imported by the server that workers are forked from: loads what they need, compiled kernels included, once."""

import ctypes
import gc
import sys

import numpy as np

_MMAP_THRESHOLD = -3
"""``M_MMAP_THRESHOLD`` of glibc's malloc.h."""
_LARGE = 4 * 2**20
"""Bytes; a decoded chunk has more, what is used again and again has less or is kept."""


def load_kernels() -> None:
    """Run the kernels for the usual types on a tiny image: compiled code is then in memory before there are workers."""
    from cellstamp.cells.kernels import cut_stamps, new_scratch
    from cellstamp.codecs import StampEncoder

    size = 2
    labels = np.ones((1, size, size), np.uint32)
    image = np.ones((1, size, size), np.uint16)
    stamps, boxes = np.zeros((1, 2, size, size), np.uint16), np.zeros((1, 2, 4), np.int64)
    ids, corner = np.ones(1, np.uint32), np.zeros(1, np.int64)
    cut_stamps(labels, image, ids, corner, corner, np.array([0.0, 1.0]), 1.0, stamps, boxes, new_scratch(size))
    encoder = StampEncoder("lzf")
    encoder.encode(stamps, boxes, np.empty(encoder.room(2, size), np.uint8))


def load_without_scipy() -> None:
    """Load the kernels as if scipy were not installed: numba would import its BLAS, which none of them uses.

    That would be a fifth of the time that a run needs to start.
    """
    absent = "scipy.linalg" not in sys.modules
    if absent:
        sys.modules["scipy.linalg"] = None  # type: ignore[assignment]
    try:
        load_kernels()
    finally:
        if absent:
            del sys.modules["scipy.linalg"]


def load_reader() -> None:
    """Import what reads pixels."""
    import zarr

    import cellstamp.cells.cutter  # noqa: F401

    # workers share the cores among themselves: a second thread to decode chunks would only take turns with the first
    zarr.config.set({"threading.max_workers": 1})


def return_large_memory() -> None:
    """Have the system take back the memory of decoded chunks as soon as they are copied.

    By itself, glibc raises the size from which it does so to that of the largest chunk freed, and then keeps as much
    again for later: up to 60 MiB a worker. Elsewhere there is nothing to do.
    """
    mallopt = getattr(ctypes.CDLL(None), "mallopt", None)
    if mallopt is not None:
        mallopt(_MMAP_THRESHOLD, _LARGE)


# nothing that is made here is garbage; what is frozen stays shared with the workers, whose collectors leave it alone
gc.disable()
return_large_memory()
load_without_scipy()
load_reader()
gc.freeze()
gc.enable()
