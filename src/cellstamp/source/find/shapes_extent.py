"""Where the cells of shapes lie on an image: in words, and an error if all of them are outside of it."""

from __future__ import annotations

from cellstamp.errors import InputError
from cellstamp.source.outlines import OutlineMask

PLACE_POLYGONS = (
    "If its polygons are in micrometres, give pixel_size, the size of a pixel in micrometres; or give transform, an "
    "affine matrix from polygons to pixels"
)
"""How to place polygons that are loaded into a project."""
PLACE_ELEMENT = (
    "Set their position in the store with spatialdata.transformations.set_transformation: polygons in micrometres need "
    "a Scale by 1 / the size of a pixel"
)
"""How to place shapes of a store."""


def check_on_image(mask: OutlineMask, fix: str) -> None:
    """Check that a mask has a cell on the image, or no cell at all.

    Raises
    ------
    InputError
        If all cells are outside; `fix` is its last sentence.
    """
    if len(mask.ids) and not mask.is_on_image().any():
        raise InputError(
            f"{mask.name}: none of its {len(mask.ids)} cells is on the image. {extent_in_words(mask)}. {fix}"
        )


def extent_in_words(mask: OutlineMask) -> str:
    """Return where the cells are, for a user to see a wrong unit."""
    height, width = mask.shape
    if not len(mask.ids):
        return f"'{mask.name}' has no cells"
    return f"'{mask.name}' has cells in {rows_and_columns(mask)} of an image of {height} x {width} pixels (y, x)"


def rows_and_columns(mask: OutlineMask) -> str:
    """Return the rows and columns of the centres of at least one cell."""
    (left, top), (right, bottom) = mask.centers.min(axis=0), mask.centers.max(axis=0)
    return f"rows {top:.0f} to {bottom:.0f} and columns {left:.0f} to {right:.0f}"
