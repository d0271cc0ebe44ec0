"""Create HDF5 files with reserved disk space: on a full disk, HDF5 can neither write nor close a file."""

from __future__ import annotations

from io import BytesIO
from pathlib import Path

import h5py
import pandas as pd

from cellstamp.h5sc.layout import HDF5_BOUND, Layout
from cellstamp.system import RawFile

_PER_CELL = 128
"""Bytes of the tables for each cell, without texts: the columns of ``obs``, the names of rows, and centres."""
_PER_TEXT = 64
"""Bytes of a text without its characters: a reference, and a header in a heap."""
_PER_COLUMN = 2**10
"""Bytes of a row of ``var``."""
_FURTHER = 2**18
"""Bytes of everything else, such as settings."""


def bytes_of_tables(layout: Layout) -> int:
    """Return how many bytes the tables of a file take at most."""
    texts = [] if layout.instances is None else map(str, layout.instances)
    return _FURTHER + layout.shape[0] * _PER_CELL + sum(_PER_TEXT + len(text.encode()) for text in texts)


def bytes_of_columns(obs: pd.DataFrame) -> int:
    """Return how many bytes a table of cells takes at most in a file, with centres."""
    return _FURTHER + len(obs) * _PER_CELL + 2 * int(obs.memory_usage(deep=True).sum())


def bytes_of_values(n_cells: int, n_columns: int) -> int:
    """Return how many bytes ``X`` and ``var`` of a table of cells take at most."""
    return n_columns * (4 * n_cells + _PER_COLUMN)


def new_file(path: Path, n_bytes: int) -> h5py.File:
    """Create a file for writing, with reserved disk space; `h5py.File.flush` and closing release the rest.

    HDF5 2.0 crashes the process at its exit if it cannot close a file. So a full disk is noticed before HDF5 has the
    file.

    Parameters
    ----------
    path
        The file, which must not exist.
    n_bytes
        Bytes to reserve.

    Raises
    ------
    OSError
        If the file exists, or the disk is full.
    """
    with path.open("xb") as file:
        file.write(_empty())
    return extended(path, n_bytes)


def extended(path: Path, n_bytes: int) -> h5py.File:
    """Open an existing file for writing, with disk space reserved for this size; see `new_file`."""
    with RawFile(path, writable=True) as raw:
        raw.reserve(n_bytes)
    return reopened(path)


def reopened(path: Path) -> h5py.File:
    """Open an existing file for writing."""
    # the lock on the folder keeps other writers out; HDF5's lock fails on network file systems without locks
    return h5py.File(path, "r+", libver=HDF5_BOUND, locking=False)


def _empty() -> bytes:
    """Return the content of an empty file that was closed: HDF5 1.14 puts a wrong checksum in images of open files."""
    memory = BytesIO()
    h5py.File(memory, "w", libver=HDF5_BOUND).close()
    return memory.getvalue()
