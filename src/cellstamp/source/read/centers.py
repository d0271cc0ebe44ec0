"""Compute the centre of every cell of a mask, block by block: memory grows with the number of cells."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, fields
from typing import Any

import numpy as np
from numpy.typing import NDArray

from cellstamp.errors import InputError
from cellstamp.source.read.arrays import PixelArray
from cellstamp.source.values import Centers, Rect

__all__ = ["BlockSums", "Centers", "compute_centers"]

BLOCK_SIDE = 2048
"""Side of a block in pixels, rounded to complete chunks."""

_STRIP_PIXELS = 2**18
"""Number of pixels that are converted to int64 at a time."""

Run = Callable[["BlockSums", Sequence[Rect]], Iterable["Sums"]]


@dataclass(frozen=True)
class Sums:
    """Sums over the pixels of cells.

    Attributes
    ----------
    ids
        int64 (n,), ascending.
    totals
        int64 (n, 3): number of pixels, sum of their x, sum of their y.
    spans
        int64 (n, 5): number of horizontal runs, first row, last row, first column, last column.
    """

    ids: NDArray[np.int64]
    totals: NDArray[np.int64]
    spans: NDArray[np.int64]

    def __getitem__(self, which: NDArray[Any]) -> Sums:
        """Return the sums of some cells, by index or by a boolean mask."""
        return Sums(self.ids[which], self.totals[which], self.spans[which])


@dataclass(frozen=True)
class BlockSums:
    """Picklable callable that sums up the cells in a block of a mask.

    Attributes
    ----------
    labels
        The mask.
    called
        Name of the mask in messages, if it is in a temporary folder; None: its name and store.
    """

    labels: PixelArray
    called: str | None = None

    def __call__(self, block: Rect) -> Sums:
        """Read one block and sum it up.

        Raises
        ------
        InputError
            If an id is negative or does not fit into int64.
        """
        pixels = self.labels.read(block)
        if pixels.dtype == np.uint64 and pixels.size and pixels.max() > np.iinfo(np.int64).max:
            raise InputError(f"{self._name()}: ids above 2**63 - 1. Renumber the cells")
        ids, totals = runs_of(pixels, block)
        if ids.size and ids.min() < 0:
            raise InputError(
                f"{self._name()}: the negative value {ids.min()}; cell ids are positive, 0 is background. If negative "
                "values are background, use this as mask: numpy.where(mask < 0, 0, mask)"
            )
        return _sums_of_runs(ids, totals)

    def _name(self) -> str:
        return self.called or f"labels '{self.labels.name}' in {self.labels.store}"


def runs_of(pixels: NDArray[Any], block: Rect) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    """Return the ids and sums of a block's horizontal runs; see `cellstamp.source.read.runs.sum_runs`.

    A few rows are converted at a time, so that their int64 copy stays small.
    """
    # imported here: it loads compiled code, which other users of this file do not need
    from cellstamp.source.read.runs import sum_runs

    height = max(1, _STRIP_PIXELS // max(1, pixels.shape[1]))
    runs = [
        sum_runs(pixels[top : top + height].astype(np.int64, order="C"), block.top + top, block.left)
        for top in range(0, pixels.shape[0], height)
    ]
    return np.concatenate([ids for ids, _ in runs]), np.concatenate([totals for _, totals in runs])


def compute_centers(labels: PixelArray, run: Run = map, *, called: str | None = None) -> Centers:
    """Compute the centre of every cell: the mean x and the mean y of its pixels.

    Parameters
    ----------
    labels
        Integer mask (y, x), 0 = background.
    run
        Applies a callable to every block, like ``map``. Results may come in any order.
    called
        Name of the mask in messages; None: its name and store.

    Returns
    -------
    Centers
        All ids of the mask but 0.

    Raises
    ------
    InputError
        If the mask has a negative value or one above 2**63 - 1.
    """
    return centers_of_sums(sum_up(labels, run, called=called))


def sum_up(
    labels: PixelArray, run: Run = map, *, called: str | None = None, blocks: Sequence[Rect] | None = None
) -> Sums:
    """Sum up the pixels of every cell, or those in some blocks, at least one; see `compute_centers`."""
    parts = list(run(BlockSums(labels, called), blocks_of(labels) if blocks is None else blocks))
    ids, totals, spans = (np.concatenate([getattr(part, one.name) for part in parts]) for one in fields(Sums))
    order, first = by_id(ids)
    if not first.size:
        return Sums(ids, totals, spans)
    spans = spans[order]
    low, high = np.minimum.reduceat(spans[:, [1, 3]], first), np.maximum.reduceat(spans[:, [2, 4]], first)
    n_runs = np.add.reduceat(spans[:, 0], first)
    merged = np.add.reduceat(totals[order], first)
    return Sums(ids[order][first], merged, np.stack([n_runs, low[:, 0], high[:, 0], low[:, 1], high[:, 1]], axis=1))


def centers_of_sums(sums: Sums) -> Centers:
    """Return the mean x and the mean y of the pixels of every cell, and its box."""
    n_pixels, sum_x, sum_y = sums.totals.T
    xy = np.stack([sum_x / n_pixels, sum_y / n_pixels], axis=1)
    return Centers(sums.ids.astype(np.uint64), xy, boxes=sums.spans[:, 1:])


def blocks_of(array: PixelArray) -> list[Rect]:
    """Return areas of complete chunks, about `BLOCK_SIDE` pixels a side, that cover a mask or an image."""
    height, width = array.shape[-2:]
    rows, columns = (chunk * max(1, BLOCK_SIDE // chunk) for chunk in array.chunks[-2:])
    return [
        Rect(top, min(top + rows, height), left, min(left + columns, width))
        for top in range(0, height, rows)
        for left in range(0, width, columns)
    ]


def _sums_of_runs(ids: NDArray[np.int64], totals: NDArray[np.int64]) -> Sums:
    """Sum up the runs of each id; runs are ordered by row."""
    order, first = by_id(ids)
    if not first.size:
        return Sums(ids, totals, np.empty((0, 5), np.int64))
    last = np.append(first[1:], order.size) - 1
    rows = [totals[order[at], 2] // totals[order[at], 0] for at in (first, last)]
    _, left, right = positions_of_runs(totals)
    columns = [np.minimum.reduceat(left[order], first), np.maximum.reduceat(right[order], first)]
    spans = np.stack([last - first + 1, *rows, *columns], axis=1)
    return Sums(ids[order][first], np.add.reduceat(totals[order], first), spans)


def positions_of_runs(totals: NDArray[np.int64]) -> tuple[NDArray[np.int64], NDArray[np.int64], NDArray[np.int64]]:
    """Return the row, the first column and the last column of runs, from what `runs_of` returns."""
    n_pixels, sum_x, sum_y = totals.T
    first = (2 * sum_x // n_pixels - n_pixels + 1) // 2
    return sum_y // n_pixels, first, first + n_pixels - 1


def by_id(ids: NDArray[np.int64]) -> tuple[NDArray[np.intp], NDArray[np.intp]]:
    """Return the order that sorts ids, and the positions in it where each id begins."""
    order = np.argsort(ids, kind="stable")
    return order, np.flatnonzero(np.diff(ids[order], prepend=-1))
