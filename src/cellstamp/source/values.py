"""Values that a source returns: areas, centres, and evidence of shared ids."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

import numpy as np
from numpy.typing import NDArray

TILES_ABREAST = 8
"""Number of tiles side by side in a strip of the walk over the image; readers keep the lower edges of this number."""


_LOOKS = {
    "boolean": "It looks like a boolean mask",
    "classes": "It looks like a mask of classes (one id for each kind of cell)",
    "8 bits": "It looks like more than 255 ids saved with 8 bits. Save it with 32 bits",
    "16 bits": "It looks like more than 65,535 ids saved with 16 bits. Save it with 32 bits",
    "repeated": "Its ids seem to restart, as in tiles that were segmented separately",
}


Scale = tuple[float, float]
"""Factors along y and x."""

Way = tuple[tuple[float, float, float], tuple[float, float, float]]
"""Two rows of an affine matrix for (y, x, 1)."""


def in_digits(way: Way) -> str:
    """Return a matrix as text for a digest, without its last bits: they differ between machines."""
    return " ".join(f"{value:.9g}" for row in way for value in row)


@dataclass(frozen=True)
class SharedIds:
    """Evidence that ids of a mask are not one cell each.

    Attributes
    ----------
    kind
        Probable kind of mask: ``"boolean"``, ``"classes"``, ``"8 bits"`` or ``"16 bits"`` (ids overflowed),
        ``"repeated"``, ``"image"`` (the values are intensities), or ``"background"`` (the only problem is that the
        background has an id).
    example, n_places
        An id, and its number of separate pieces; of an image, its number of pixels.
    background
        Probable id of the background; None: 0, which is correct.
    """

    kind: str
    example: int
    n_places: int
    background: int | None = None

    def message(self, mask: str) -> str:
        """Return the warning: the problem, an example, and how to number the cells."""
        code = "mask" if self.background is None else f"numpy.where(mask == {self.background}, 0, mask)"
        if self.kind == "background":
            return (
                f"{mask}: no pixel is 0, and most have id {self.background}. If that is the background, use this as "
                f"mask: {code}"
            )
        fix = ", or use this as mask" if self.kind.endswith("bits") else ". Use this as mask"
        if self.kind == "image":
            return (
                f"{mask}: this looks like an image, not a mask: the pixels of most ids are scattered, like the "
                f"{self.n_places:,} pixels of id {self.example}. Load labels of a segmentation with overwrite=True. "
                "If this is an image, load it with load_input_from_array and segment it"
            )
        return (
            f"{mask}: one id stands for many cells: id {self.example} has {self.n_places} separate pieces. "
            f"{_LOOKS[self.kind]}{fix}: skimage.measure.label({code})"
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
        Evidence that ids of the mask are not one cell each, if any; None for a selection of cells.
    boxes
        int64 (n, 4): first row, last row, first column, last column of each cell; of length 0 unless the centres were
        just computed from the mask.
    """

    ids: NDArray[np.uint64]
    xy: NDArray[np.float64]
    shared: SharedIds | None = None
    boxes: NDArray[np.int64] = field(default_factory=lambda: np.empty((0, 4), np.int64), repr=False)

    def __len__(self) -> int:
        return self.ids.size

    def __getitem__(self, which: NDArray[Any]) -> Centers:
        """Return some of the cells, by index or by a boolean mask."""
        return Centers(self.ids[which], self.xy[which])


@dataclass(frozen=True)
class Rect:
    """Area of the image in pixels, half open: rows top to bottom, columns left to right."""

    top: int
    bottom: int
    left: int
    right: int

    @property
    def shape(self) -> tuple[int, int]:
        """Return the numbers of rows and columns."""
        return self.bottom - self.top, self.right - self.left

    @property
    def is_empty(self) -> bool:
        """Return whether the area has no pixels."""
        return self.top >= self.bottom or self.left >= self.right

    def clipped(self, height: int, width: int) -> Rect:
        """Return the part inside an image."""
        return Rect(max(self.top, 0), min(self.bottom, height), max(self.left, 0), min(self.right, width))

    def holds(self, other: Rect) -> bool:
        """Return whether ``other`` lies inside."""
        return (
            self.top <= other.top
            and other.bottom <= self.bottom
            and self.left <= other.left
            and other.right <= self.right
        )

    def slices(self, origin: Rect) -> tuple[slice, slice]:
        """Return the area as slices of an array that begins at the first pixel of ``origin``."""
        return (
            slice(self.top - origin.top, self.bottom - origin.top),
            slice(self.left - origin.left, self.right - origin.left),
        )
