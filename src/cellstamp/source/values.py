"""What a source hands out, as plain values."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

TILES_ABREAST = 8
"""Tiles side by side in one strip of the walk over the image: readers keep the lower edges of so many."""


@dataclass(frozen=True)
class Centers:
    """Cells and where they are, ascending by id.

    Attributes
    ----------
    ids
        uint64 (n,).
    xy
        float64 (n, 2): centres as x, y, in pixels of the full-resolution labels.
    """

    ids: NDArray[np.uint64]
    xy: NDArray[np.float64]

    def __len__(self) -> int:
        return self.ids.size

    def __getitem__(self, which: NDArray[Any]) -> Centers:
        """Some of the cells, by index or by a boolean mask."""
        return Centers(self.ids[which], self.xy[which])


@dataclass(frozen=True)
class Rect:
    """An area of the image in pixels, half open: rows top to bottom, columns left to right."""

    top: int
    bottom: int
    left: int
    right: int

    @property
    def shape(self) -> tuple[int, int]:
        """Rows and columns."""
        return self.bottom - self.top, self.right - self.left

    @property
    def is_empty(self) -> bool:
        """Whether there is no pixel in it."""
        return self.top >= self.bottom or self.left >= self.right

    def clipped(self, height: int, width: int) -> Rect:
        """What of it is inside an image."""
        return Rect(max(self.top, 0), min(self.bottom, height), max(self.left, 0), min(self.right, width))

    def holds(self, other: Rect) -> bool:
        """Whether ``other`` lies inside."""
        return (
            self.top <= other.top
            and other.bottom <= self.bottom
            and self.left <= other.left
            and other.right <= self.right
        )

    def slices(self, origin: Rect) -> tuple[slice, slice]:
        """This area as slices of an array whose first pixel is the first of ``origin``."""
        return (
            slice(self.top - origin.top, self.bottom - origin.top),
            slice(self.left - origin.left, self.right - origin.left),
        )
