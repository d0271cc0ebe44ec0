"""Detect masks in which one id stands for many cells: boolean masks, masks of classes, ids that overflowed.

The pass that computes the centres also counts the runs of each id, and records its first and last row. For most masks
these numbers suffice. Only suspect ids are examined again: how many connected components each has, and whether other
cells lie between them.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, fields, replace
from typing import Any

import numpy as np
from numpy.typing import NDArray

from cellstamp.source.read.arrays import PixelArray
from cellstamp.source.read.boxes import boxes_around, wanted_runs
from cellstamp.source.read.centers import Sums, blocks_of, by_id, centers_of_sums, sum_up
from cellstamp.source.values import Centers, Rect, SharedIds

FEW_IDS = 32
"""Masks with at most this number of ids are always examined: they are small, or have classes."""

_LEAST_PIXELS = 4
"""Smaller pieces are specks, not cells."""

_RUN = 3
"""Average length, in pixels, of the horizontal runs of cells; in images, runs are shorter."""

_MANY_PIECES = 20
_MOST_SUSPECTS = 256
_ALIKE = 0.25
"""Pieces count if they have this fraction of the pixels of the id's largest piece."""

Run = Callable[[Any, Sequence[Rect]], Iterable[Any]]


@dataclass(frozen=True)
class Pieces:
    """Connected components of suspect ids.

    Attributes
    ----------
    ids, n_pixels
        int64 (n,): id and size of each.
    boxes
        int64 (n, 4): first row, last row, first column, last column.
    """

    ids: NDArray[np.int64]
    n_pixels: NDArray[np.int64]
    boxes: NDArray[np.int64]

    def __getitem__(self, which: NDArray[Any]) -> Pieces:
        """Return some of the pieces, by index or by a boolean mask."""
        return Pieces(self.ids[which], self.n_pixels[which], self.boxes[which])


@dataclass(frozen=True)
class BlockPieces:
    """Picklable callable that finds the pieces of ids that lie entirely in a block of a mask."""

    labels: PixelArray
    ids: NDArray[np.int64]

    def __call__(self, block: Rect) -> Pieces:
        """Read one block and find the connected components (8 neighbours)."""
        # imported here: it loads compiled code, which most masks do not need
        from cellstamp.source.read.runs import join_runs

        ids, runs = wanted_runs(self.labels, self.ids, block)
        rows, _, firsts, lasts = np.ascontiguousarray(runs.T)  # compiled code takes contiguous arrays
        order, first = by_id(join_runs(ids, rows, firsts, lasts))
        n_pixels = np.add.reduceat((lasts - firsts + 1)[order], first)
        pieces = Pieces(ids[order][first], n_pixels, boxes_around(runs, order, first))
        return pieces[(pieces.n_pixels >= _LEAST_PIXELS) & _inside(pieces.boxes, block, self.labels.shape)]


def _inside(boxes: NDArray[np.int64], block: Rect, shape: Sequence[int]) -> NDArray[np.bool_]:
    """Return which pieces cannot continue in a neighbouring block."""
    height, width = shape
    top, bottom, left, right = boxes.T
    inside: NDArray[np.bool_] = (
        ((top > block.top) | (block.top == 0))
        & ((bottom < block.bottom - 1) | (block.bottom == height))
        & ((left > block.left) | (block.left == 0))
        & ((right < block.right - 1) | (block.right == width))
    )
    return inside


def survey(labels: PixelArray, run: Run = map, *, called: str | None = None) -> Centers:
    """Compute the centre of every cell, and check that each id is one cell.

    Parameters
    ----------
    labels, run, called
        See `cellstamp.source.read.centers.compute_centers`.

    Returns
    -------
    Centers
        All ids of the mask but 0; `shared` has the evidence that ids are not cells, if any.

    Raises
    ------
    InputError
        If the mask has a negative value or one above 2**63 - 1.
    """
    sums = sum_up(labels, run, called=called)
    return replace(centers_of_sums(sums), shared=_find_shared(labels, sums, run))


def _find_shared(labels: PixelArray, sums: Sums, run: Run) -> SharedIds | None:
    image = _as_image(sums)
    if image is not None:
        return image
    background = _background(sums, labels.shape)
    cells = sums if background is None else sums[sums.ids != background]
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
    """Return the id that covers most of a mask in which no pixel is 0."""
    n_pixels = sums.totals[:, 0]
    if not sums.ids.size or n_pixels.sum() < np.prod(shape) or 2 * n_pixels.max() < n_pixels.sum():
        return None
    return int(sums.ids[np.argmax(n_pixels)])


def _suspects(sums: Sums) -> NDArray[np.int64]:
    """Return at most `_MOST_SUSPECTS` ids whose runs and rows suggest several pieces."""
    if sums.ids.size <= FEW_IDS:
        return sums.ids
    odd = _are_scattered(sums)
    if odd.sum() < _least_suspects(sums.ids.size):
        odd = sums.spans[:, 0] > 8 * np.sqrt(sums.totals[:, 0])
    if _share_of_largest(sums) > 0.5:
        odd[_largest(sums)] = True
    found = np.flatnonzero(odd)
    return sums.ids[found[np.linspace(0, found.size - 1, min(found.size, _MOST_SUSPECTS)).astype(np.intp)]]


def _are_scattered(sums: Sums) -> NDArray[np.bool_]:
    """Return which ids have runs and rows that suggest several pieces."""
    sides = np.sqrt(sums.totals[:, 0])
    n_runs, first_row, last_row = sums.spans[:, :3].T
    # rows between the first and the last without a run: the id has more than one piece
    apart = last_row - first_row + 1 - n_runs > 3 * sides
    scattered: NDArray[np.bool_] = apart | (n_runs > 4 * sides)
    return scattered


def _as_image(sums: Sums) -> SharedIds | None:
    """Return the evidence if the values are intensities: most pixels have a scattered id, most of these short runs."""
    n_pixels, n_runs = sums.totals[:, 0], sums.spans[:, 0]
    scattered = _are_scattered(sums)
    if sums.ids.size <= FEW_IDS or 2 * n_pixels[scattered].sum() <= n_pixels.sum():
        return None
    if np.median(n_pixels[scattered] / n_runs[scattered]) >= _RUN:
        return None
    example = np.argmax(np.where(scattered, n_runs, 0))
    return SharedIds("image", int(sums.ids[example]), int(n_pixels[example]))


def _least_suspects(n_ids: int) -> float:
    """Return the least number of ids with several pieces that are not just a few unusual cells.

    At most half of the ids that are examined: otherwise very large masks would never have that many.
    """
    return min(max(3, 0.01 * n_ids), _MOST_SUSPECTS / 2)


def _largest(sums: Sums) -> NDArray[np.intp]:
    """Return the indices of the two ids with the most pixels."""
    largest: NDArray[np.intp] = np.argsort(sums.totals[:, 0])[-2:]
    return largest


def _share_of_largest(sums: Sums) -> float:
    n_pixels = sums.totals[:, 0]
    return float(n_pixels[_largest(sums)].sum() / n_pixels.sum())


@dataclass(frozen=True)
class _Scattered:
    """An id and its pieces: their number, whether they are far apart, and the box around all."""

    id: int
    n_pieces: int
    is_spread: bool
    box: NDArray[np.int64]


def _scattered(of_one: Pieces) -> _Scattered:
    if of_one.ids.size < _MANY_PIECES:
        of_one = of_one[of_one.n_pixels >= _ALIKE * of_one.n_pixels.max()]
    boxes = of_one.boxes
    middles = np.stack([boxes[:, :2].mean(axis=1), boxes[:, 2:].mean(axis=1)], axis=1)
    spread = float(np.hypot(*np.ptp(middles, axis=0)))
    box = np.concatenate([np.minimum.reduce(boxes), np.maximum.reduce(boxes)])[[0, 5, 2, 7]]
    return _Scattered(int(of_one.ids[0]), of_one.ids.size, spread > 3 * np.sqrt(of_one.n_pixels.mean()), box)


def _judge(sums: Sums, pieces: Pieces, dtype: np.dtype[Any]) -> SharedIds | None:
    """Decide from the pieces of suspect ids whether one id stands for many cells."""
    order, first = by_id(pieces.ids)
    ids = [_scattered(pieces[of_one]) for of_one in np.split(order, first[1:]) if of_one.size]
    found = _many_pieces(sums, pieces, ids) or _few_for_most(sums, ids) or _mixed(sums, ids)
    if not found:
        return None
    example = max(found, key=lambda one: one.n_pieces)
    return SharedIds(_kind_of_mask(sums, dtype), example.id, example.n_pieces)


def _many_pieces(sums: Sums, pieces: Pieces, ids: Sequence[_Scattered]) -> list[_Scattered]:
    """Return ids with many pieces. Of a few such ids among many others, the pieces must be as large as cells."""
    found = [one for one in ids if one.n_pieces >= _MANY_PIECES]
    if sums.ids.size <= FEW_IDS or len(found) >= _least_suspects(sums.ids.size):
        return found
    # a fragmented cell, or one with specks around it, is still one cell
    large = pieces.ids[pieces.n_pixels >= _ALIKE * np.median(sums.totals[:, 0])]
    return [one for one in found if np.count_nonzero(large == one.id) >= _MANY_PIECES]


def _few_for_most(sums: Sums, ids: Sequence[_Scattered]) -> list[_Scattered]:
    """Return one or two ids with most pixels of the mask, if they have several pieces."""
    if _share_of_largest(sums) <= 0.5:
        return []
    largest = [one for one in ids if one.id in sums.ids[_largest(sums)]]
    if sums.ids.size == 1 and any(one.n_pieces >= 4 for one in largest):
        return largest
    # one or two ids may be cells in two fragments, but not 255, the value of thresholds
    several = [one for one in largest if one.n_pieces >= (2 if sums.ids.tolist() == [255] else 3) and one.is_spread]
    if sums.ids.size <= 2 and len(several) == sums.ids.size:
        return several
    # one of several ids may be a cell in three pieces
    return [one for one in several if one.n_pieces >= 4]


def _mixed(sums: Sums, ids: Sequence[_Scattered]) -> list[_Scattered]:
    """Return ids with several pieces and other cells between them, if they are too many to be unusual cells."""
    centers = centers_of_sums(sums)
    found = [one for one in ids if one.n_pieces > 1 and one.is_spread and _surrounds_others(one, centers)]
    return found if len(found) >= _least_suspects(sums.ids.size) else []


def _surrounds_others(one: _Scattered, centers: Centers) -> bool:
    """Return whether the centre of another cell is in the box around an id's pieces."""
    top, bottom, left, right = one.box
    x, y = centers.xy.T
    inside = (x >= left) & (x <= right) & (y >= top) & (y <= bottom) & (centers.ids != one.id)
    return bool(inside.any())


def _kind_of_mask(sums: Sums, dtype: np.dtype[Any]) -> str:
    if sums.ids.size == 1:
        return "boolean"
    if sums.ids.size <= FEW_IDS:
        return "classes"
    for n_bits in (8, 16):
        if 8 * dtype.itemsize == n_bits == 8 or sums.ids[-1] == 2**n_bits - 1:
            return f"{n_bits} bits"
    return "repeated"
