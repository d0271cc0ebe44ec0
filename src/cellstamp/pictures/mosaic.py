"""Arrange many small pictures in one image, with NumPy only."""

from __future__ import annotations

import math
from collections.abc import Iterable
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

MOST_PIXELS = 8_000_000
"""Maximum number of pixels of all tiles together; screens and pages show fewer."""

_GAP = 0.04
"""Space between tiles / side of a tile."""


@dataclass(frozen=True)
class Grid:
    """Positions of tiles: cells row by row, the tiles of a cell side by side. Sizes are in pixels of the image.

    Attributes
    ----------
    n_cells, n_tiles
        Number of cells, and of tiles for each cell.
    n_across
        Number of cells side by side.
    tile
        Side of a tile.
    gap
        Space between tiles.
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
        """Number of rows of cells."""
        return -(-self.n_cells // self.n_across)

    @property
    def pitch(self) -> tuple[int, int]:
        """Distance from a cell to the next one below, and to the next one on the right."""
        return self.above + self.tile + self.gap, self.before + self.n_tiles * (self.tile + self.gap) + self._between

    @property
    def _between(self) -> int:
        """Extra space between the tiles of neighbouring cells."""
        return 3 * self.gap if self.n_tiles > 1 else 0

    @property
    def shape(self) -> tuple[int, int]:
        """Height and width of the image."""
        down, across = self.pitch
        return self.n_down * down - self.gap, self.n_across * across - self.gap - self._between

    def corner(self, cell: int, tile: int = 0) -> tuple[int, int]:
        """Return the first row and column of a tile."""
        row, column = divmod(cell, self.n_across)
        down, across = self.pitch
        return row * down + self.above, column * across + self.before + tile * (self.tile + self.gap)


def shrinking(n_tiles: int, side: int) -> int:
    """Return the factor that reduces the side of a single-cell image so that all tiles have at most `MOST_PIXELS`."""
    return min(side, math.ceil(math.sqrt(n_tiles * side * side / MOST_PIXELS)))


def shrunk(planes: NDArray[np.float32], step: int) -> NDArray[np.float32]:
    """Average squares of `step` x `step` pixels of planes (..., y, x); incomplete squares are dropped."""
    if step == 1:
        return planes
    side = planes.shape[-1] // step
    squares = planes[..., : side * step, : side * step].reshape(*planes.shape[:-2], side, step, side, step)
    means: NDArray[np.float32] = squares.mean(axis=(-3, -1), dtype=np.float32)
    return means


def choose_across(n_cells: int, n_tiles: int, aspect: float) -> int:
    """Return the number of cells side by side for a width / height near `aspect`, with few empty places."""

    def cost(across: int) -> float:
        down = -(-n_cells // across)
        return abs(math.log(across * n_tiles / down / aspect)) + (across * down - n_cells) / n_cells

    return min(range(1, n_cells + 1), key=cost)


def count_in_full_rows(n_tiles: int, aspect: float, near: int = 16) -> int:
    """Return a number of cells near `near` whose rows, arranged by `choose_across`, are all full."""
    full = [n for n in range(near - 4, near + 5) if n % choose_across(n, n_tiles, aspect) == 0]
    return min(full, key=lambda n: abs(n - near), default=near)


def gap_of(tile: int) -> int:
    """Return the space between tiles of this side, in pixels."""
    return max(1, round(_GAP * tile))


def stretched(values: NDArray[np.float32], low: float = 0.001, high: float = 0.999) -> NDArray[np.float32]:
    """Stretch values over 0 to 1, between the limits that `limits_of` finds."""
    limits = limits_of(values, low, high)
    return np.zeros_like(values) if limits is None else stretched_between(values, *limits)


def limits_of(values: NDArray[np.float32], low: float = 0.001, high: float = 0.999) -> tuple[float, float] | None:
    """Return a low quantile of all values, and a high quantile of the positive values. None: no value is positive.

    Masked pixels are 0. They are often the majority, so the high quantile ignores them.
    """
    finite = values[np.isfinite(values)]
    lit = finite[finite > 0]
    return (float(np.quantile(finite, low)), float(np.quantile(lit, high))) if lit.size else None


def stretched_between(values: NDArray[np.float32], darkest: float, brightest: float) -> NDArray[np.float32]:
    """Return values with the two limits at 0 and 1, clipped to this range."""
    span = np.float32(brightest - darkest) if brightest > darkest else np.float32(1)
    bright: NDArray[np.float32] = np.clip((values - np.float32(darkest)) / span, 0, 1)
    return bright


def blended(planes: NDArray[np.float32], colours: NDArray[np.float32]) -> NDArray[np.uint8]:
    """Add planes (c, y, x), 0 to 1, each in its colour (c, 3); return uint8 (y, x, 3)."""
    light = np.clip(np.tensordot(np.nan_to_num(planes), colours, axes=(0, 0)), 0, 1)
    return np.round(light * 255).astype(np.uint8)


def assemble_gray(grid: Grid, tiles: Iterable[NDArray[np.float32]]) -> NDArray[np.float32]:
    """Assemble the planes (n_tiles, y, x) of each cell to one image: float32 (y, x), NaN between tiles."""
    image = np.full(grid.shape, np.nan, np.float32)
    for cell, planes in enumerate(tiles):
        for number, plane in enumerate(planes):
            y, x = grid.corner(cell, number)
            image[y : y + grid.tile, x : x + grid.tile] = plane
    return image


def assemble_colours(grid: Grid, tiles: Iterable[NDArray[np.uint8]]) -> NDArray[np.uint8]:
    """Assemble a picture (y, x, 3) of each cell to one image: uint8 (y, x, 4), transparent between tiles."""
    image = np.zeros((*grid.shape, 4), np.uint8)
    for cell, picture in enumerate(tiles):
        y, x = grid.corner(cell)
        image[y : y + grid.tile, x : x + grid.tile, :3] = picture
        image[y : y + grid.tile, x : x + grid.tile, 3] = 255
    return image
