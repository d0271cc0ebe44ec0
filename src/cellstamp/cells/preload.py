"""Imported by the server that workers are forked from: loads what they need, compiled kernels included, once.

Kernels that were not compiled before are not compiled here, where nobody is told, but by a worker (see
`cellstamp.pipeline.compile_kernels`), which knows the types. Only where code cannot be kept do workers get it in no
other way.
"""

import ctypes
import gc
import sys

from cellstamp.cells.warm import load_kernels
from cellstamp.compiling.cache_folders import USUAL, find_folder, is_kept

_ARENA_MAX = -8
"""``M_ARENA_MAX`` of glibc's malloc.h."""


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


def share_one_heap() -> None:
    """Have the threads of a worker take memory from one heap.

    They take turns, one decoding chunks and the other cutting cells. With a heap for each, as glibc has it, each keeps
    what the other could use: 30 MiB a worker. Elsewhere there is nothing to do.
    """
    mallopt = getattr(ctypes.CDLL(None), "mallopt", None)
    if mallopt is not None:
        mallopt(_ARENA_MAX, 1)


# nothing that is made here is garbage; what is frozen stays shared with the workers, whose collectors leave it alone
gc.disable()
share_one_heap()
if is_kept(USUAL) or find_folder() is None:
    load_without_scipy()
load_reader()
gc.freeze()
gc.enable()
