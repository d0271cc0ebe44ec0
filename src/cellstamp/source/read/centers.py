"""Id and centre of every cell of a mask, block by block: memory goes with the number of cells."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, fields
from typing import Any

import numpy as np
from numpy.typing import NDArray

from cellstamp.errors import InputError
from cellstamp.source.read.arrays import ArrayHandle
from cellstamp.source.values import Centers, Rect

__all__ = ["BlockSums", "Centers", "compute_centers"]

BLOCK_SIDE = 2048
"""Pixels a block is meant to measure, where chunks leave the choice."""

_STRIP_PIXELS = 2**18
"""Pixels that are widened to int64 at a time."""

Run = Callable[["BlockSums", Sequence[Rect]], Iterable["Sums"]]


@dataclass(frozen=True)
class Sums:
    """Pixels of some cells.

    Attributes
    ----------
    ids
        int64 (n,), ascending.
    totals
        int64 (n, 3): for each the number of pixels, and the sums of their x and y.
    spans
        int64 (n, 3): for each the number of runs, its first row and its last.
    """

    ids: NDArray[np.int64]
    totals: NDArray[np.int64]
    spans: NDArray[np.int64]


@dataclass(frozen=True)
class BlockSums:
    """Callable from a block of a mask to the sums of the cells in it; picklable.

    Attributes
    ----------
    labels
        The mask.
    called
        What to call it in a message, when it is in a place that nobody has heard of; else it is told where it is.
    """

    labels: ArrayHandle
    called: str | None = None

    def __call__(self, block: Rect) -> Sums:
        """Read one block and sum it up.

        Raises
        ------
        InputError
            If a label is negative or does not fit into int64.
        """
        pixels = self.labels.read(block)
        if pixels.dtype == np.uint64 and pixels.size and pixels.max() > np.iinfo(np.int64).max:
            raise InputError(f"{self._name()}: ids above 2**63 - 1; renumber the cells")
        ids, totals = runs_of(pixels, block)
        if ids.size and ids.min() < 0:
            raise InputError(
                f"{self._name()}: the negative value {ids.min()}; cell ids are positive, 0 is background. If negative "
                "values are background, use this as mask: numpy.where(mask < 0, 0, mask)"
            )
        return _of_runs(ids, totals)

    def _name(self) -> str:
        return self.called or f"labels '{self.labels.name}' in {self.labels.store}"


def runs_of(pixels: NDArray[Any], block: Rect) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    """The runs of a block, a few rows after the other: the wider copy of their labels stays small."""
    # compiled code is loaded with it, which only those who sum up need
    from cellstamp.source.read.runs import sum_runs

    height = max(1, _STRIP_PIXELS // max(1, pixels.shape[1]))
    runs = [
        sum_runs(pixels[top : top + height].astype(np.int64, order="C"), block.top + top, block.left)
        for top in range(0, pixels.shape[0], height)
    ]
    return np.concatenate([ids for ids, _ in runs]), np.concatenate([totals for _, totals in runs])


def compute_centers(labels: ArrayHandle, run: Run = map, *, called: str | None = None) -> Centers:
    """Compute the centre of every cell: the mean x and the mean y of its pixels.

    Parameters
    ----------
    labels
        Integer mask (y, x), 0 = background.
    run
        How to apply a callable to every block; ``map`` does it here, one after the other. Results may come in any
        order.
    called
        What to call the mask in a message; None: its name and the store it is in.

    Returns
    -------
    Centers
        Every id of the mask but 0.

    Raises
    ------
    InputError
        If the mask holds a negative value or one above 2**63 - 1.
    """
    return centers_of_sums(sum_up(labels, run, called=called))


def sum_up(labels: ArrayHandle, run: Run = map, *, called: str | None = None) -> Sums:
    """Sum up the pixels of every cell; see `compute_centers`."""
    parts = list(run(BlockSums(labels, called), blocks_of(labels)))
    ids, totals, spans = (np.concatenate([getattr(part, one.name) for part in parts]) for one in fields(Sums))
    order, first = by_id(ids)
    if not first.size:
        return Sums(ids, totals, spans)
    n_runs, rows = np.add.reduceat(spans[order, 0], first), spans[order]
    first_row, last_row = np.minimum.reduceat(rows[:, 1], first), np.maximum.reduceat(rows[:, 2], first)
    merged = np.add.reduceat(totals[order], first)
    return Sums(ids[order][first], merged, np.stack([n_runs, first_row, last_row], axis=1))


def centers_of_sums(sums: Sums) -> Centers:
    """Return the mean x and the mean y of the pixels of every cell."""
    n_pixels, sum_x, sum_y = sums.totals.T
    return Centers(sums.ids.astype(np.uint64), np.stack([sum_x / n_pixels, sum_y / n_pixels], axis=1))


def blocks_of(array: ArrayHandle) -> list[Rect]:
    """Areas of whole chunks, about `BLOCK_SIDE` pixels a side, that cover a mask or an image."""
    height, width = array.shape[-2:]
    rows, columns = (chunk * max(1, BLOCK_SIDE // chunk) for chunk in array.chunks[-2:])
    return [
        Rect(top, min(top + rows, height), left, min(left + columns, width))
        for top in range(0, height, rows)
        for left in range(0, width, columns)
    ]


def _of_runs(ids: NDArray[np.int64], totals: NDArray[np.int64]) -> Sums:
    """Add up the runs that have the same id; they are in the order of their rows."""
    order, first = by_id(ids)
    if not first.size:
        return Sums(ids, totals, totals)
    last = np.append(first[1:], order.size) - 1
    rows = [totals[order[at], 2] // totals[order[at], 0] for at in (first, last)]
    spans = np.stack([last - first + 1, *rows], axis=1)
    return Sums(ids[order][first], np.add.reduceat(totals[order], first), spans)


def places_of(totals: NDArray[np.int64]) -> tuple[NDArray[np.int64], NDArray[np.int64], NDArray[np.int64]]:
    """Return the row, the first column and the last column of runs, from what `runs_of` returns."""
    n_pixels, sum_x, sum_y = totals.T
    first = (2 * sum_x // n_pixels - n_pixels + 1) // 2
    return sum_y // n_pixels, first, first + n_pixels - 1


def by_id(ids: NDArray[np.int64]) -> tuple[NDArray[np.intp], NDArray[np.intp]]:
    """The order that brings the same ids together, ascending, and where in it each id begins."""
    order = np.argsort(ids, kind="stable")
    return order, np.flatnonzero(np.diff(ids[order], prepend=-1))
