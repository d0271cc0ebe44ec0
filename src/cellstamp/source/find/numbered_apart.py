"""Find labels of nuclei and cells that use one id for different cells, from a few of the cells."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from cellstamp.source.read.arrays import PixelArray, PixelSource
from cellstamp.source.values import Centers, Rect

_N_CANDIDATES, _N_EXAMINED = 8, 64
"""Cells of which the chunk with most cells is read, and cells that are examined in it. Reading a chunk takes 20 ms."""

_MANY, _FEWEST = 0.25, 3
"""Share of the examined cells, and number of cells; fewer may be errors of a segmentation."""


@dataclass(frozen=True)
class NumberedApart:
    """Cells whose centre in the first labels belongs to another cell of the second ones.

    Attributes
    ----------
    n_examined, n_other
        Number of examined cells, and of those in another one.
    example
        Id of one of these cells, and of the one in which it lies.
    """

    n_examined: int
    n_other: int
    example: tuple[int, int]


def find_numbered_apart(source: PixelSource, cells: Centers) -> NumberedApart | None:
    """Return the evidence that two label masks number cells differently; None if there is little, or one mask only."""
    if len(source.labels) < 2 or not len(cells):
        return None
    examined = _examined(cells, source.labels[-1].chunks)
    others, own = _ids_at(source.labels[-1], cells.xy[examined]), cells.ids[examined]
    apart = np.flatnonzero((others != 0) & (others != own))
    if apart.size <= max(_MANY * own.size, _FEWEST - 1):
        return None
    return NumberedApart(own.size, apart.size, (int(own[apart[0]]), int(others[apart[0]])))


def _examined(cells: Centers, chunk: tuple[int, ...]) -> NDArray[np.int64]:
    """Return the indices of some cells of one chunk."""
    rows, columns = (cells.xy[:, ::-1] // chunk[-2:]).astype(np.int64).T
    number = rows * (columns.max() + 1) + columns
    # the first cells may be numbered alike, up to the first one without a nucleus
    later = number[_spread(len(cells), 2 * _N_CANDIDATES)[-_N_CANDIDATES:]]
    chunks, n_cells = np.unique(number[np.isin(number, later)], return_counts=True)
    members = np.flatnonzero(number == chunks[n_cells.argmax()])
    return members[_spread(members.size, _N_EXAMINED)]


def _spread(n: int, n_chosen: int) -> NDArray[np.int64]:
    """Return some of the indices below ``n``, evenly spread, with the first and the last."""
    return np.unique(np.linspace(0, n - 1, n_chosen).round().astype(np.int64))


def _ids_at(labels: PixelArray, xy: NDArray[np.float64]) -> NDArray[np.uint64]:
    """Return the ids of the labels at the centres of cells of one chunk."""
    x, y = np.rint(xy).astype(np.int64).T
    pixels = labels.read(Rect(int(y.min()), int(y.max()) + 1, int(x.min()), int(x.max()) + 1))
    ids: NDArray[np.uint64] = pixels[y - y.min(), x - x.min()].astype(np.uint64)
    return ids
