"""Count the pixels that each nucleus of one mask shares with each cell of another."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from itertools import product
from typing import Any

import numpy as np
from numpy.typing import NDArray

from cellstamp.source.load.pixels import Pixels, Region

_BLOCK = 2048
"""Approximate side in pixels of the blocks in which masks are read."""

Ids = NDArray[np.uint64]


@dataclass(frozen=True)
class Overlaps:
    """Pairs of a nucleus and a cell that overlap, each once, ascending.

    Attributes
    ----------
    nuclei, cells
        uint64 (n,): their ids; 0 is background.
    n_pixels
        int64 (n,): number of pixels that both cover.
    """

    nuclei: Ids
    cells: Ids
    n_pixels: NDArray[np.int64]

    def __getitem__(self, which: NDArray[Any]) -> Overlaps:
        """Return some of the pairs, by index or by a boolean mask."""
        return Overlaps(self.nuclei[which], self.cells[which], self.n_pixels[which])


def count_overlaps(nucleus: Pixels, cytosol: Pixels) -> Overlaps:
    """Return the overlaps of two masks (y, x) of equal shape; they are read block by block."""
    found = [_overlaps_in(nucleus.read(block), cytosol.read(block)) for block in blocks_of_both(nucleus, cytosol)]
    none = np.zeros(0, np.uint64)
    parts = [Overlaps(none, none, np.zeros(0, np.int64)), *found]
    return _summed(
        *(np.concatenate(values) for values in zip(*((p.nuclei, p.cells, p.n_pixels) for p in parts), strict=True))
    )


def blocks_of_both(nucleus: Pixels, cytosol: Pixels) -> Iterator[Region]:
    """Divide the masks into blocks of complete chunks of the mask with the larger chunks."""
    chunks = [max(sizes) for sizes in zip(nucleus.chunks, cytosol.chunks, strict=True)]
    sides = [chunk * max(1, _BLOCK // chunk) for chunk in chunks]
    starts = [range(0, size, side) for size, side in zip(nucleus.shape, sides, strict=True)]
    for corner in product(*starts):
        ends = (min(at + side, size) for at, side, size in zip(corner, sides, nucleus.shape, strict=True))
        yield tuple(slice(at, end) for at, end in zip(corner, ends, strict=True))


def _overlaps_in(nucleus: NDArray[Any], cytosol: NDArray[Any]) -> Overlaps:
    nuclei, cells = nucleus.ravel(), cytosol.ravel()
    # neighbouring pixels mostly have the same ids: sorting their runs is faster than sorting pixels
    starts = starts_of_runs(nuclei, cells)
    n_pixels = np.diff(starts, append=nuclei.size)
    return _summed(nuclei[starts].astype(np.uint64), cells[starts].astype(np.uint64), n_pixels)


def starts_of_runs(*values: NDArray[Any]) -> NDArray[np.intp]:
    """Return the indices at which one of these 1-D arrays of equal size changes, and 0 if they are not empty."""
    changes = np.ones(values[0].size, bool)
    changes[1:] = False
    for each in values:
        changes[1:] |= each[1:] != each[:-1]
    return np.flatnonzero(changes)


def _summed(nuclei: Ids, cells: Ids, n_pixels: NDArray[np.int64]) -> Overlaps:
    """Return each pair once, ascending by nucleus and cell."""
    if not nuclei.size:
        return Overlaps(nuclei, cells, n_pixels)
    order = np.lexsort((cells, nuclei))
    nuclei, cells = nuclei[order], cells[order]
    starts = starts_of_runs(nuclei, cells)
    return Overlaps(nuclei[starts], cells[starts], np.add.reduceat(n_pixels[order], starts))
