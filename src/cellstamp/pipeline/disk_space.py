"""Whether what is to be written fits on the disk: known before a run for what can never fit, and better during it."""

from __future__ import annotations

import shutil
from pathlib import Path

import numpy as np

from cellstamp.errors import OutputError
from cellstamp.h5sc.layout import Layout
from cellstamp.report import format_bytes

_INDEX_BYTES = 16
"""Of the file's index, for each chunk."""
_TOLERANCE = 0.9
"""Cells differ: a run is stopped if even this share of what it will need, by what is written so far, is not free."""


def smallest_chunk(layout: Layout) -> int:
    """Bytes that a chunk takes at the least: one of zeros only."""
    raw = np.dtype(layout.dtype).itemsize * layout.image_size**2
    # lzf repeats at most 264 bytes by three, deflate 258 by two bits
    return {None: raw, "lzf": raw // 264 * 3, "gzip": raw // 1032}[layout.compression] + _INDEX_BYTES


class DiskSpace:
    """Keeps an eye on the room that is left for a file.

    Parameters
    ----------
    folder
        Where the file is made.
    layout
        What it will hold.
    n_done
        Cells that are in it already.

    Raises
    ------
    OutputError
        If what is missing does not fit even if it is as small as can be.
    """

    def __init__(self, folder: Path, layout: Layout, n_done: int) -> None:
        self._folder = folder
        self._n_left = layout.shape[0] - n_done
        self._n_cells = self._n_bytes = 0
        needed = self._n_left * layout.shape[1] * smallest_chunk(layout)
        if needed > self._free():
            raise OutputError(
                f"{folder}: the stamps of {self._n_left:,} cells need at least {format_bytes(needed)}, and only "
                f"{format_bytes(self._free())} are free there. Make room, or give another directory"
            )

    def wrote(self, n_cells: int, n_bytes: int) -> None:
        """Take in what was written."""
        self._n_cells += n_cells
        self._n_bytes += n_bytes
        self._n_left -= n_cells

    def check(self) -> None:
        """Look whether the rest will fit, if it is like what was written so far.

        Raises
        ------
        OutputError
            If it will not.
        """
        if not self._n_cells:
            return
        needed = self._n_left * self._n_bytes // self._n_cells
        free = self._free()
        if needed * _TOLERANCE > free:
            raise OutputError(
                f"{self._folder}: the stamps of the {self._n_left:,} cells that are left need about "
                f"{format_bytes(needed)}, and only {format_bytes(free)} are free there. What is finished is kept: make "
                "room and extract again, it goes on from there"
            )

    def _free(self) -> int:
        return shutil.disk_usage(self._folder).free
