"""Check that the results fit on the disk: a minimum before the run, an estimate during the run."""

from __future__ import annotations

import shutil
from pathlib import Path
from typing import NamedTuple, Self

from cellstamp.errors import OutputError
from cellstamp.h5sc.feature_table import bytes_of_features
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


class FeatureSpace(NamedTuple):
    """Bytes that features take beside the images.

    Attributes
    ----------
    per_cell
        Of a cell while it is extracted: in the journal, and in the temporary file of all features.
    at_end
        Of the table with the features of all cells.
    """

    per_cell: int = 0
    at_end: int = 0

    @classmethod
    def of(cls, layout: Layout, n_features: int) -> Self:
        """Return the space for this number of features, and whether the cells were measured in part."""
        n_bytes = 4 * (1 + n_features)
        return cls(2 * n_bytes, bytes_of_features(layout, n_features))


NO_FEATURES = FeatureSpace()


def check_fits(
    folder: Path, layout: Layout, n_left: int, features: FeatureSpace = NO_FEATURES, *, images: bool = True
) -> None:
    """Check that the minimum size of cells fits on the disk.

    Parameters
    ----------
    folder
        Folder of the file.
    layout
        Layout of the file.
    n_left
        Number of cells that are not written yet.
    features
        Space for features.

    Raises
    ------
    OutputError
        If it is larger than the free space.
    """
    of_images = layout.chunks_per_cell * smallest_chunk(layout) if images else 0
    needed = n_left * (of_images + features.per_cell)
    free = shutil.disk_usage(folder).free
    if needed > free:
        what = _words(features, images=images)
        raise OutputError(
            f"{folder}: the {what} of {n_left:,} cells need at least {format_bytes(needed)}, and only "
            f"{format_bytes(free)} are free there. Free disk space, or give another directory"
        )


def _words(features: FeatureSpace, *, images: bool = True) -> str:
    return " and ".join(["images"] * images + ["features"] * (features.per_cell > 0))


class DiskSpace:
    """Check the free disk space for a file while it is written.

    Parameters
    ----------
    folder
        Folder of the file.
    n_left
        Number of cells that are not written yet.
    features
        Space for features.
    images
        Whether the images are on this disk, not in an object store.
    """

    def __init__(self, folder: Path, n_left: int, features: FeatureSpace = NO_FEATURES, *, images: bool = True) -> None:
        self._folder, self._n_left = folder, n_left
        self._features, self._images = features, images
        self._n_cells = self._n_bytes = 0

    def wrote(self, n_cells: int, n_bytes: int) -> None:
        """Record cells and bytes as written."""
        self._n_cells += n_cells
        self._n_bytes += n_bytes if self._images else 0
        self._n_left -= n_cells

    def check(self) -> None:
        """Check that the rest fits, with the table of features, if its images are as large as the written ones.

        Raises
        ------
        OutputError
            If it does not.
        """
        if not self._n_cells:
            return
        of_images = self._n_left * self._n_bytes // self._n_cells
        needed = of_images + self._n_left * self._features.per_cell + self._features.at_end
        free = shutil.disk_usage(self._folder).free
        if needed * _TOLERANCE > free:
            what = _words(self._features, images=self._images)
            raise OutputError(
                f"{self._folder}: the {what} of the remaining {self._n_left:,} cells need about "
                f"{format_bytes(needed)}, and only {format_bytes(free)} are free there. Free disk space, and "
                "extract again"
            )
