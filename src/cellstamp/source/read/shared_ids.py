"""One id for many cells: masks that are boolean, hold classes, or in which ids ran over and started again.

The pass that computes the centres also counts the runs of each id, and notes its first and last row. Most masks are
cleared by these numbers. Only ids that they make suspect are looked at once more: how many connected components each
has, and whether other cells lie between them.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, fields, replace
from typing import Any

import numpy as np
from numpy.typing import NDArray

from cellstamp.source.read.arrays import ArrayHandle
from cellstamp.source.read.centers import Sums, blocks_of, by_id, centers_of_sums, places_of, runs_of, sum_up
from cellstamp.source.values import Centers, Rect, SharedIds

FEW_IDS = 32
"""A mask of so few ids is always looked at: it is small, or one of classes."""

_LEAST_PIXELS = 4
"""Smaller pieces are specks, not cells."""

_MANY_PIECES = 20
_MOST_SUSPECTS = 256
_ALIKE = 0.25
"""A piece counts when it has this share of the pixels of the id's largest one."""

Run = Callable[[Any, Sequence[Rect]], Iterable[Any]]


@dataclass(frozen=True)
class Pieces:
    """Connected components of some ids.

    Attributes
    ----------
    ids, n_pixels
        int64 (n,): the id of each, and its size.
    boxes
        int64 (n, 4): its first row, last row, first column, last column.
    """

    ids: NDArray[np.int64]
    n_pixels: NDArray[np.int64]
    boxes: NDArray[np.int64]


@dataclass(frozen=True)
class BlockPieces:
    """Callable from a block of a mask to the pieces of some ids that lie in it entirely; picklable."""

    labels: ArrayHandle
    ids: NDArray[np.int64]

    def __call__(self, block: Rect) -> Pieces:
        """Read one block and find the connected components (8 neighbours)."""
        # compiled code is loaded with it, which masks that are cleared do not need
        from cellstamp.source.read.runs import join_runs

        found, totals = runs_of(self.labels.read(block), block)
        wanted = np.isin(found, self.ids)
        found, n_pixels, (rows, firsts, lasts) = found[wanted], totals[wanted, 0], places_of(totals[wanted])
        order, first = by_id(join_runs(found, rows, firsts, lasts))
        if not first.size:
            return Pieces(found, n_pixels, np.zeros((0, 4), np.int64))
        low = np.minimum.reduceat(np.stack([rows, firsts], axis=1)[order], first)
        high = np.maximum.reduceat(np.stack([rows, lasts], axis=1)[order], first)
        boxes = np.stack([low[:, 0], high[:, 0], low[:, 1], high[:, 1]], axis=1)
        pieces = Pieces(found[order][first], np.add.reduceat(n_pixels[order], first), boxes)
        return _some(pieces, (pieces.n_pixels >= _LEAST_PIXELS) & _inside(boxes, block, self.labels.shape))


def _inside(boxes: NDArray[np.int64], block: Rect, shape: Sequence[int]) -> NDArray[np.bool_]:
    """Which pieces can't go on in a neighbouring block."""
    height, width = shape
    top, bottom, left, right = boxes.T
    inside: NDArray[np.bool_] = (
        ((top > block.top) | (block.top == 0))
        & ((bottom < block.bottom - 1) | (block.bottom == height))
        & ((left > block.left) | (block.left == 0))
        & ((right < block.right - 1) | (block.right == width))
    )
    return inside


def _some(pieces: Pieces, which: NDArray[Any]) -> Pieces:
    return Pieces(pieces.ids[which], pieces.n_pixels[which], pieces.boxes[which])


def survey(labels: ArrayHandle, run: Run = map, *, called: str | None = None) -> Centers:
    """Compute the centre of every cell, and find out whether each id is one cell.

    Parameters
    ----------
    labels, run, called
        See `cellstamp.source.read.centers.compute_centers`.

    Returns
    -------
    Centers
        Every id of the mask but 0; its `shared` says what suggests that ids are not cells.

    Raises
    ------
    InputError
        If the mask holds a negative value or one above 2**63 - 1.
    """
    sums = sum_up(labels, run, called=called)
    return replace(centers_of_sums(sums), shared=_find_shared(labels, sums, run))


def _find_shared(labels: ArrayHandle, sums: Sums, run: Run) -> SharedIds | None:
    background = _background(sums, labels.shape)
    cells = sums if background is None else _without(sums, background)
    suspects = _suspects(cells)
    if suspects.size:
        parts = list(run(BlockPieces(labels, suspects), blocks_of(labels)))
        pieces = Pieces(*(np.concatenate([getattr(part, one.name) for part in parts]) for one in fields(Pieces)))
        shared = _judge(cells, pieces, np.dtype(labels.dtype))
        if shared is not None:
            return replace(shared, background=background)
    if background is None or cells.ids.size < FEW_IDS // 4:
        return None
    return SharedIds("background", background, 1, background)


def _background(sums: Sums, shape: Sequence[int]) -> int | None:
    """The id that covers most of a mask in which no pixel is 0."""
    n_pixels = sums.totals[:, 0]
    if not sums.ids.size or n_pixels.sum() < np.prod(shape) or 2 * n_pixels.max() < n_pixels.sum():
        return None
    return int(sums.ids[np.argmax(n_pixels)])


def _without(sums: Sums, one: int) -> Sums:
    kept = sums.ids != one
    return Sums(sums.ids[kept], sums.totals[kept], sums.spans[kept])


def _suspects(sums: Sums) -> NDArray[np.int64]:
    """Ids that may be in several places, as far as their runs and rows show it; at most `_MOST_SUSPECTS`."""
    if sums.ids.size <= FEW_IDS:
        return sums.ids
    sides = np.sqrt(sums.totals[:, 0])
    n_runs, first_row, last_row = sums.spans.T
    # rows between the first and the last in which the id has no run: it is in more than one piece
    apart = last_row - first_row + 1 - n_runs > 3 * sides
    scattered = n_runs > 4 * sides
    odd = apart | scattered
    if odd.sum() < _enough(sums.ids.size):
        odd = n_runs > 8 * sides
    if _share_of_largest(sums) > 0.5:
        odd[_largest(sums)] = True
    found = np.flatnonzero(odd)
    return sums.ids[found[np.linspace(0, found.size - 1, min(found.size, _MOST_SUSPECTS)).astype(np.intp)]]


def _enough(n_ids: int) -> float:
    """How many ids must be in several places, so that it is not a few odd cells."""
    return max(3, 0.01 * n_ids)


def _largest(sums: Sums) -> NDArray[np.intp]:
    """The two ids with the most pixels."""
    largest: NDArray[np.intp] = np.argsort(sums.totals[:, 0])[-2:]
    return largest


def _share_of_largest(sums: Sums) -> float:
    n_pixels = sums.totals[:, 0]
    return float(n_pixels[_largest(sums)].sum() / n_pixels.sum())


@dataclass(frozen=True)
class _Scattered:
    """An id in several places: how many, whether they are far from each other, and the box around all."""

    id: int
    n_pieces: int
    is_spread: bool
    box: NDArray[np.int64]


def _scattered(of_one: Pieces) -> _Scattered:
    if of_one.ids.size < _MANY_PIECES:
        of_one = _some(of_one, of_one.n_pixels >= _ALIKE * of_one.n_pixels.max())
    boxes = of_one.boxes
    middles = np.stack([boxes[:, :2].mean(axis=1), boxes[:, 2:].mean(axis=1)], axis=1)
    spread = float(np.hypot(*np.ptp(middles, axis=0)))
    box = np.concatenate([np.minimum.reduce(boxes), np.maximum.reduce(boxes)])[[0, 5, 2, 7]]
    return _Scattered(int(of_one.ids[0]), of_one.ids.size, spread > 3 * np.sqrt(of_one.n_pixels.mean()), box)


def _judge(sums: Sums, pieces: Pieces, dtype: np.dtype[Any]) -> SharedIds | None:
    """Decide from the pieces of suspect ids whether ids of the mask stand for many cells."""
    order, first = by_id(pieces.ids)
    ids = [_scattered(_some(pieces, of_one)) for of_one in np.split(order, first[1:]) if of_one.size]
    found = [one for one in ids if one.n_pieces >= _MANY_PIECES] or _few_for_most(sums, ids) or _mixed(sums, ids)
    if not found:
        return None
    example = max(found, key=lambda one: one.n_pieces)
    return SharedIds(_kind(sums, dtype), example.id, example.n_pieces)


def _few_for_most(sums: Sums, ids: Sequence[_Scattered]) -> list[_Scattered]:
    """One or two ids that have most pixels of the mask, and are in several places."""
    if _share_of_largest(sums) <= 0.5:
        return []
    largest = [one for one in ids if one.id in sums.ids[_largest(sums)]]
    if sums.ids.size == 1 and any(one.n_pieces >= 4 for one in largest):
        return largest
    # one or two ids may be cells in two fragments, but not the value that thresholds give
    least = 2 if sums.ids.tolist() == [255] else 3 if sums.ids.size <= 2 else 4
    return [one for one in largest if one.n_pieces >= least and one.is_spread]


def _mixed(sums: Sums, ids: Sequence[_Scattered]) -> list[_Scattered]:
    """Ids in several places with other cells between them, if they are too many to be odd cells."""
    centers = centers_of_sums(sums)
    found = [one for one in ids if one.n_pieces > 1 and one.is_spread and _has_others(one, centers)]
    return found if len(found) >= _enough(sums.ids.size) else []


def _has_others(one: _Scattered, centers: Centers) -> bool:
    """Whether the centre of another cell is in the box around an id's pieces."""
    top, bottom, left, right = one.box
    x, y = centers.xy.T
    inside = (x >= left) & (x <= right) & (y >= top) & (y <= bottom) & (centers.ids != one.id)
    return bool(inside.any())


def _kind(sums: Sums, dtype: np.dtype[Any]) -> str:
    if sums.ids.size == 1:
        return "boolean"
    if sums.ids.size <= FEW_IDS:
        return "classes"
    for n_bits in (8, 16):
        if 8 * dtype.itemsize == n_bits == 8 or sums.ids[-1] == 2**n_bits - 1:
            return f"{n_bits} bits"
    return "repeated"
