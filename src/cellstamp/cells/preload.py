"""Load the modules and compiled kernels that workers need.

The server that forks workers imports this once. Workers that are new interpreters import it themselves.

Kernels are loaded here, not compiled: a worker compiles them, with a message and for the right types (see
`cellstamp.pipeline.compile_kernels`). Only if no folder can keep compiled code, the server compiles them.
"""

import gc
import sys

from cellstamp.cells.load_kernels import load_kernels
from cellstamp.compiling.cache_folders import USUAL, find_folder, is_kept
from cellstamp.system import c_function

_ARENA_MAX = -8
"""``M_ARENA_MAX`` of glibc's malloc.h."""


def load_without_scipy() -> None:
    """Load the kernels without scipy: numba would import its BLAS, which none of them uses.

    That would take a fifth of the time that a run needs to start.
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
    """Import the modules that read pixels."""
    import zarr

    import cellstamp.cells.cutter  # noqa: F401

    # workers already use all cores, so a second thread to decode chunks gains nothing
    zarr.config.set({"threading.max_workers": 1})


def share_one_heap() -> None:
    """Make the threads of a worker use one heap.

    By default, glibc has a heap for each thread. The threads that decode chunks and cut cells take turns, so one heap
    saves 30 MiB per worker. Without glibc, this does nothing.
    """
    mallopt = c_function("mallopt")
    if mallopt is not None:
        mallopt(_ARENA_MAX, 1)


# no garbage is made here, and frozen objects stay shared with the workers: their collectors skip them
gc.disable()
share_one_heap()
if is_kept(USUAL) or find_folder() is None:
    load_without_scipy()
load_reader()
gc.freeze()
gc.enable()
