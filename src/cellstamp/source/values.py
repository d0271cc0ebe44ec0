"""What a source hands out, as plain values."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

TILES_ABREAST = 8
"""Tiles side by side in one strip of the walk over the image: readers keep the lower edges of so many."""


_LOOKS = {
    "boolean": "It looks like a boolean mask",
    "classes": "It looks like a mask of classes (one id for each kind of cell), or its ids ran over and started again",
    "8 bits": "It looks like more than 255 ids that were saved with 8 bits: save the mask with 16 or 32 bits",
    "16 bits": "It looks like more than 65,535 ids that were saved with 16 bits: save the mask with 32 bits",
    "repeated": "Its ids seem to have started again, as in tiles that were segmented one by one",
}


@dataclass(frozen=True)
class SharedIds:
    """What suggests that ids of a mask are not one cell each.

    Attributes
    ----------
    kind
        What the mask looks like: ``"boolean"``, ``"classes"``, ``"8 bits"`` or ``"16 bits"`` (larger ids started
        again), ``"repeated"``, or ``"background"`` (its only fault is that the background has an id).
    example, n_places
        An id, and in how many separate places of the image it is.
    background
        The id that the background seems to have; None: 0, as it should be.
    """

    kind: str
    example: int
    n_places: int
    background: int | None = None

    def message(self, mask: str) -> str:
        """Say what the mask looks like, and how to number its cells."""
        code = "mask" if self.background is None else f"numpy.where(mask == {self.background}, 0, mask)"
        if self.kind == "background":
            return (
                f"{mask}: cells cover all of the mask, most of it id {self.background}. If that is the background, it "
                f"must be 0; use this as mask (overwrite=True replaces a loaded one): {code}"
            )
        number = "If only this mask exists, number" if self.kind.endswith("bits") else "Number"
        return (
            f"{mask}: one id stands for many cells; id {self.example} is in {self.n_places} separate places, and would "
            f"be extracted as one cell. {_LOOKS[self.kind]}. {number} its connected components and use the result as "
            f"mask (overwrite=True replaces a loaded one): skimage.measure.label({code})"
        )


@dataclass(frozen=True)
class Centers:
    """Cells and where they are, ascending by id.

    Attributes
    ----------
    ids
        uint64 (n,).
    xy
        float64 (n, 2): centres as x, y, in pixels of the full-resolution labels.
    shared
        What suggests that ids of the mask are not one cell each, if anything does; of some of the cells: None.
    """

    ids: NDArray[np.uint64]
    xy: NDArray[np.float64]
    shared: SharedIds | None = None

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
