"""Check that the results fit on the disk: a minimum before the run, an estimate during the run."""

from __future__ import annotations

import shutil
from pathlib import Path

from cellstamp.errors import OutputError
from cellstamp.h5sc.layout import Layout
from cellstamp.report import format_bytes

_INDEX_BYTES = 16
"""Size of the entry of a chunk in the file's index."""
_TOLERANCE = 0.9
"""Cells differ in size: a run stops if less than this share of the estimated size is free."""


def smallest_chunk(layout: Layout) -> int:
    """Return the minimum size of a chunk in bytes: of zeros only."""
    raw = layout.chunk_bytes
    # lzf repeats at most 264 bytes by three, deflate 258 by two bits
    smallest = {None: raw, "lzf": raw // 264 * 3, "gzip": raw // 1032, "lz4": raw // 255, "zstd": 0}
    return smallest[layout.compression] + _INDEX_BYTES


class Unlimited:
    """Free space of an object store; see `DiskSpace`."""

    def wrote(self, n_cells: int, n_bytes: int) -> None:
        """Do nothing."""

    def check(self) -> None:
        """Do nothing."""


def check_fits(folder: Path, layout: Layout, n_left: int) -> None:
    """Check that the minimum size of cells fits on the disk.

    Parameters
    ----------
    folder
        Folder of the file.
    layout
        Layout of the file.
    n_left
        Number of cells that are not written yet.

    Raises
    ------
    OutputError
        If it is larger than the free space.
    """
    needed, free = n_left * layout.chunks_per_cell * smallest_chunk(layout), shutil.disk_usage(folder).free
    if needed > free:
        raise OutputError(
            f"{folder}: the images of {n_left:,} cells need at least {format_bytes(needed)}, and only "
            f"{format_bytes(free)} are free there. Free disk space, or give another directory"
        )


class DiskSpace:
    """Check the free disk space for a file while it is written.

    Parameters
    ----------
    folder
        Folder of the file.
    n_left
        Number of cells that are not written yet.
    """

    def __init__(self, folder: Path, n_left: int) -> None:
        self._folder, self._n_left = folder, n_left
        self._n_cells = self._n_bytes = 0

    def wrote(self, n_cells: int, n_bytes: int) -> None:
        """Record cells and bytes as written."""
        self._n_cells += n_cells
        self._n_bytes += n_bytes
        self._n_left -= n_cells

    def check(self) -> None:
        """Check that the rest fits, if its images are as large as the written ones.

        Raises
        ------
        OutputError
            If it does not.
        """
        if not self._n_cells:
            return
        needed = self._n_left * self._n_bytes // self._n_cells
        free = shutil.disk_usage(self._folder).free
        if needed * _TOLERANCE > free:
            raise OutputError(
                f"{self._folder}: the images of the remaining {self._n_left:,} cells need about "
                f"{format_bytes(needed)}, and only {format_bytes(free)} are free there. Finished cells are kept: free "
                "disk space and extract again to resume"
            )
