"""Choose the cells to extract, and divide them into batches. Nothing is read or written here."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import accumulate

import numpy as np
from numpy.typing import NDArray

from cellstamp.errors import ConfigError
from cellstamp.source.outlines import NO_CELLS, ChosenOutlines
from cellstamp.source.values import TILES_ABREAST, Centers, Rect

TILE_SIDE = 2048
"""Intended side of a tile in pixels, if chunks allow it."""

BATCH_BYTES = 32 * 2**20
"""Largest size of a batch, in bytes of uncompressed single-cell images."""


@dataclass(frozen=True)
class Tile:
    """A tile: its area, and the region that crops of a batch and of later batches in the tile need."""

    area: Rect
    region: Rect


@dataclass(frozen=True)
class Batch:
    """Cells of one tile that are cut together.

    Attributes
    ----------
    tile
        Pixels to read.
    rows
        int32 (n,): row of each cell in the result. All batches of a slide are in memory, so small integers matter.
    ids
        uint64 (n,).
    tops, lefts
        int32 (n,): the first pixel of each window, in the image.
    outlines
        Outlines of the cells in the masks that have outlines.
    """

    tile: Tile
    rows: NDArray[np.int32]
    ids: NDArray[np.uint64]
    tops: NDArray[np.int32]
    lefts: NDArray[np.int32]
    outlines: ChosenOutlines = NO_CELLS

    def __len__(self) -> int:
        return self.ids.size

    def __str__(self) -> str:
        return (
            f"{len(self)} cells, ids {self.ids.min()} to {self.ids.max()}" if len(self) > 1 else f"cell {self.ids[0]}"
        )

    def __getitem__(self, which: slice | NDArray[np.bool_]) -> Batch:
        """Return some of its cells."""
        own = (self.rows[which], self.ids[which], self.tops[which], self.lefts[which])
        return Batch(self.tile, *own, self.outlines[which])

    def halves(self) -> tuple[Batch, ...]:
        """Divide it in two; one cell cannot be divided."""
        middle = len(self) // 2
        return (self[:middle], self[middle:]) if middle else ()

    @property
    def pieces(self) -> tuple[Batch, ...]:
        """Return the parts that are cut one after the other: only itself."""
        return (self,)


@dataclass(frozen=True)
class ShardBatch:
    """Cells of consecutive rows that one worker writes to a shard.

    Attributes
    ----------
    number
        Number of the shard.
    pieces
        Its cells, by tile.
    """

    number: int
    pieces: tuple[Batch, ...]

    def __len__(self) -> int:
        return sum(map(len, self.pieces))

    def __str__(self) -> str:
        ids = np.concatenate([piece.ids for piece in self.pieces])
        return f"{len(self)} cells of shard {self.number}, ids {ids.min()} to {ids.max()}"

    @property
    def rows(self) -> NDArray[np.int32]:
        """Return the rows of its cells, ascending."""
        return np.sort(np.concatenate([piece.rows for piece in self.pieces]))

    def halves(self) -> tuple[ShardBatch, ...]:
        """Return it with smaller pieces, which need less memory: a shard cannot be divided."""
        halves = tuple(half for piece in self.pieces for half in piece.halves() or (piece,))
        return (ShardBatch(self.number, halves),) if len(halves) > len(self.pieces) else ()


def window_corners(cells: Centers, image_size: int) -> NDArray[np.int64]:
    """First pixel (x, y) of each cell's window: the rounded centre less half the window, int64 (n, 2)."""
    return np.round(cells.xy).astype(np.int64) - image_size // 2


def inside_image(cells: Centers, image_size: int, shape: tuple[int, int]) -> NDArray[np.bool_]:
    """Return which cells are kept, bool (n,): those whose rounded centre is more than half a window from every edge.

    Parameters
    ----------
    shape
        Height and width of the image in pixels.
    """
    half = image_size // 2
    x, y = np.round(cells.xy).T
    height, width = shape
    inside: NDArray[np.bool_] = (half < x) & (x < width - half) & (half < y) & (y < height - half)
    return inside


def sample_cells(cells: Centers, n_cells: int | None, seed: int) -> Centers:
    """Draw ``n_cells`` cells for a preview, ascending by id.

    Raises
    ------
    ConfigError
        If ``n_cells`` is missing, not a positive integer, or more than there are.
    """
    if isinstance(n_cells, bool) or not isinstance(n_cells, int | np.integer) or n_cells < 1:
        message = (
            f"a partial extraction needs n_cells, an integer from 1 to {len(cells)} (the cells that can be extracted); "
            f"got {n_cells!r}"
        )
        raise ConfigError(message)
    if n_cells > len(cells):
        message = f"n_cells = {n_cells} is more than the {len(cells)} cells that can be extracted; lower n_cells"
        raise ConfigError(message)
    rng = np.random.default_rng(seed)
    return cells[np.sort(rng.choice(len(cells), n_cells, replace=False))]


def tile_shape(
    shape: tuple[int, int], chunks: Sequence[tuple[int, int]], *, bytes_per_pixel: int, limit: int
) -> tuple[int, int]:
    """Height and width of a tile: whole chunks, about `TILE_SIDE` pixels a side, never more than ``limit`` bytes.

    Parameters
    ----------
    shape
        Height and width of the image.
    chunks
        Chunk height and width of each array that is read. Where they differ, tiles follow the largest.
    """
    chunk = [max(chunk[axis] for chunk in chunks) for axis in (0, 1)]
    counts = [max(1, TILE_SIDE // side) for side in chunk]
    while _sides(chunk, counts, shape)[2] * bytes_per_pixel > limit and max(counts) > 1:
        longest = max((0, 1), key=lambda axis: (counts[axis] > 1, counts[axis] * chunk[axis]))
        counts[longest] -= 1
    height, width, _ = _sides(chunk, counts, shape)
    while height * width * bytes_per_pixel > limit and height * width > 1:
        # less than a chunk: it will be decoded more than once
        if height >= width:
            height = -(-height // 2)
        else:
            width = -(-width // 2)
    return height, width


def _sides(chunk: Sequence[int], counts: Sequence[int], shape: tuple[int, int]) -> tuple[int, int, int]:
    """Height, width and pixels of ``counts`` chunks, or of the complete image if it is smaller."""
    height, width = (min(side * count, whole) for side, count, whole in zip(chunk, counts, shape, strict=True))
    return height, width, height * width


def slide_order(cells: Centers, image_size: int, shape: tuple[int, int], tile: tuple[int, int]) -> NDArray[np.int64]:
    """Return the order of cells along the slide, int64 (n,): tile by tile, and inside a tile from top to bottom.

    See `plan_batches`. Neighbours in this order share pixels.
    """
    return _in_tiles(window_corners(cells, image_size), image_size, shape, tile)[0]


def _in_tiles(
    corners: NDArray[np.int64], image_size: int, shape: tuple[int, int], tile: tuple[int, int]
) -> tuple[NDArray[np.int64], list[int], list[int], list[int]]:
    """Return the order of cells, and for each tile its start in this order, its row and its column."""
    # narrow integers: for a moment, there are several copies
    last_x, last_y = (corners + image_size - 1).astype(np.int32).T
    row, column = np.minimum(last_y, shape[0] - 1) // tile[0], np.minimum(last_x, shape[1] - 1) // tile[1]
    # inside a tile from top to bottom: a later batch needs no pixels above it
    order = np.lexsort((last_y, column, row, column // TILES_ABREAST))
    row, column = row[order], column[order]
    starts = np.flatnonzero(np.diff(row, prepend=-1) | np.diff(column, prepend=-1))
    return order, starts.tolist(), row[starts].tolist(), column[starts].tolist()


def plan_batches(
    cells: Centers,
    image_size: int,
    shape: tuple[int, int],
    *,
    tile: tuple[int, int],
    chunk: tuple[int, int],
    max_batch_size: int,
    margin: int = 0,
    outlines: ChosenOutlines = NO_CELLS,
    rows_per_shard: int | None = None,
) -> list[Batch]:
    """Divide cells into batches, ordered so that neighbours in the list read the same or neighbouring chunks.

    A cell belongs to the tile that holds the last pixel of its window, so windows reach out of a tile only above and to
    the left, where tiles have been read before.

    Parameters
    ----------
    cells
        Kept cells; their order is that of the result.
    shape
        Height and width of the image.
    tile
        Height and width of a tile, see `tile_shape`.
    chunk
        Height and width of the largest chunk: a tile with few cells reads whole chunks of this size.
    max_batch_size
        Cells in a batch, at most. A tile's cells are divided evenly.
    margin
        Pixels that crops may reach over the image's border; these belong to the tiles at the border.
    outlines
        Of the cells.
    rows_per_shard
        Number of rows in a shard; a batch has cells of one shard. None: no shards.
    """
    corners = window_corners(cells, image_size)
    order, starts, rows, columns = _in_tiles(corners, image_size, shape, tile)
    batches: list[Batch] = []
    for start, end, row, column in zip(starts, [*starts[1:], len(cells)], rows, columns, strict=True):
        members = order[start:end]
        area = Rect(
            *_stretch(row, tile[0], shape[0], margin=margin), *_stretch(column, tile[1], shape[1], margin=margin)
        )
        parts = [
            part
            for shard in _by_shard(members, rows_per_shard)
            for part in np.array_split(shard, -(-shard.size // max_batch_size))
        ]
        for part, first in zip(parts, accumulate(map(len, parts), initial=0), strict=False):
            where = Tile(area, _region(corners[members[first:]], image_size, area, chunk))
            batches.append(_batch(where, np.sort(part), cells, corners, outlines))
    return batches


def _by_shard(members: NDArray[np.int64], rows_per_shard: int | None) -> list[NDArray[np.int64]]:
    """Divide the rows of a tile's cells at the ends of shards."""
    if rows_per_shard is None:
        return [members]
    rows = np.sort(members)
    return np.split(rows, np.flatnonzero(np.diff(rows // rows_per_shard)) + 1)


def in_shards(batches: Sequence[Batch], rows_per_shard: int) -> list[ShardBatch]:
    """Collect batches with cells of one shard each, see `plan_batches`, in the order of the shards."""
    pieces: dict[int, list[Batch]] = {}
    for batch in batches:
        pieces.setdefault(int(batch.rows[0]) // rows_per_shard, []).append(batch)
    return [ShardBatch(number, tuple(pieces[number])) for number in sorted(pieces)]


def _stretch(number: int, tile: int, whole: int, *, margin: int) -> tuple[int, int]:
    """First pixel and end of a tile along one axis, at the image's border with a margin around it."""
    start, end = number * tile, (number + 1) * tile
    return (start if number else -margin), (end if end < whole else whole + margin)


def cells_per_batch(max_batch_size: int, cell_bytes: int) -> int:
    """Cells in a batch: at most ``max_batch_size``, and at most `BATCH_BYTES` of uncompressed single-cell images."""
    return max(1, min(max_batch_size, BATCH_BYTES // cell_bytes))


def _batch(
    tile: Tile, members: NDArray[np.int64], cells: Centers, corners: NDArray[np.int64], outlines: ChosenOutlines
) -> Batch:
    left, top = corners[members].astype(np.int32).T
    return Batch(tile, members.astype(np.int32), cells.ids[members], top.copy(), left.copy(), outlines[members])


def _region(corners: NDArray[np.int64], image_size: int, area: Rect, chunk: tuple[int, int]) -> Rect:
    """Return the region that crops need: exact outside the tile, complete chunks inside it (decoded anyway)."""
    left, top = corners.min(axis=0).tolist()
    right, bottom = (corners.max(axis=0) + image_size).tolist()
    return Rect(
        *_snap(top, bottom, area.top, area.bottom, chunk[0]),
        *_snap(left, right, area.left, area.right, chunk[1]),
    )


def _snap(start: int, end: int, area_start: int, area_end: int, chunk: int) -> tuple[int, int]:
    if start > area_start:
        start = max(area_start, start // chunk * chunk)
    return start, min(area_end, -(-end // chunk) * chunk)
