"""Many small pictures as one image: where each goes, and its pixels. NumPy alone, nothing is drawn here."""

from __future__ import annotations

import math
from collections.abc import Iterable
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

MOST_PIXELS = 8_000_000
"""Pixels of all tiles together: more than a screen or a page can show."""

_GAP = 0.04
"""Space between tiles, as a part of one."""


@dataclass(frozen=True)
class Grid:
    """Where tiles go: cells row by row, the tiles of a cell side by side. All sizes in pixels of the image.

    Attributes
    ----------
    n_cells, n_tiles
        How many cells, and tiles of each.
    n_across
        Cells side by side.
    tile
        Side of a tile.
    gap
        Space between the tiles.
    above, before
        Space for a label above each tile, and before the first tile of each cell.
    """

    n_cells: int
    n_tiles: int
    n_across: int
    tile: int
    gap: int
    above: int = 0
    before: int = 0

    @property
    def n_down(self) -> int:
        """Rows of cells."""
        return -(-self.n_cells // self.n_across)

    @property
    def pitch(self) -> tuple[int, int]:
        """From one cell to the one below it, and to the one on its right."""
        return self.above + self.tile + self.gap, self.before + self.n_tiles * (self.tile + self.gap) + self._between

    @property
    def _between(self) -> int:
        """Tiles of one cell are closer to each other than to those of the next."""
        return 3 * self.gap if self.n_tiles > 1 else 0

    @property
    def shape(self) -> tuple[int, int]:
        """Height and width of the image."""
        down, across = self.pitch
        return self.n_down * down - self.gap, self.n_across * across - self.gap - self._between

    def corner(self, cell: int, tile: int = 0) -> tuple[int, int]:
        """First row and column of a tile."""
        row, column = divmod(cell, self.n_across)
        down, across = self.pitch
        return row * down + self.above, column * across + self.before + tile * (self.tile + self.gap)


def shrinking(n_tiles: int, side: int) -> int:
    """How many pixels of a stamp become one, along each side, so that all tiles are no more than can be shown."""
    return min(side, math.ceil(math.sqrt(n_tiles * side * side / MOST_PIXELS)))


def shrunk(planes: NDArray[np.float32], step: int) -> NDArray[np.float32]:
    """Means of squares of `step` pixels of planes (..., y, x); what is left at the far edges is left out."""
    if step == 1:
        return planes
    side = planes.shape[-1] // step
    squares = planes[..., : side * step, : side * step].reshape(*planes.shape[:-2], side, step, side, step)
    means: NDArray[np.float32] = squares.mean(axis=(-3, -1), dtype=np.float32)
    return means


def choose_across(n_cells: int, n_tiles: int, aspect: float) -> int:
    """How many cells go side by side, so that width by height is near `aspect`, with few places left empty."""

    def cost(across: int) -> float:
        down = -(-n_cells // across)
        return abs(math.log(across * n_tiles / down / aspect)) + (across * down - n_cells) / n_cells

    return min(range(1, n_cells + 1), key=cost)


def gap_of(tile: int) -> int:
    """Space between tiles of this side."""
    return max(1, round(_GAP * tile))


def stretched(values: NDArray[np.float32], low: float = 0.001, high: float = 0.999) -> NDArray[np.float32]:
    """Stretch values over 0 to 1: from a low quantile of them to a high one of those that are not 0.

    What was masked is 0, and there may be much of it.
    """
    finite = values[np.isfinite(values)]
    lit = finite[finite > 0]
    if not lit.size:
        return np.zeros_like(values)
    darkest, brightest = np.quantile(finite, low), np.quantile(lit, high)
    span = np.float32(brightest - darkest) if brightest > darkest else np.float32(1)
    bright: NDArray[np.float32] = np.clip((values - np.float32(darkest)) / span, 0, 1)
    return bright


def blended(planes: NDArray[np.float32], colours: NDArray[np.float32]) -> NDArray[np.uint8]:
    """Planes (c, y, x) of values from 0 to 1, each in its colour (c, 3), added up: uint8 (y, x, 3)."""
    light = np.clip(np.tensordot(np.nan_to_num(planes), colours, axes=(0, 0)), 0, 1)
    return np.round(light * 255).astype(np.uint8)


def assemble_gray(grid: Grid, tiles: Iterable[NDArray[np.float32]]) -> NDArray[np.float32]:
    """Put the planes (n_tiles, y, x) of each cell into one image (y, x); between them it is NaN."""
    image = np.full(grid.shape, np.nan, np.float32)
    for cell, planes in enumerate(tiles):
        for number, plane in enumerate(planes):
            y, x = grid.corner(cell, number)
            image[y : y + grid.tile, x : x + grid.tile] = plane
    return image


def assemble_colours(grid: Grid, tiles: Iterable[NDArray[np.uint8]]) -> NDArray[np.uint8]:
    """Put a picture (y, x, 3) of each cell into one image (y, x, 4); between them it is transparent."""
    image = np.zeros((*grid.shape, 4), np.uint8)
    for cell, picture in enumerate(tiles):
        y, x = grid.corner(cell)
        image[y : y + grid.tile, x : x + grid.tile, :3] = picture
        image[y : y + grid.tile, x : x + grid.tile, 3] = 255
    return image
