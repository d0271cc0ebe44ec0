"""Find polygons in micrometres that are taken for pixels: tiny cells in the upper left corner of the image."""

from __future__ import annotations

from textwrap import indent

import numpy as np

from cellstamp.lengths import PixelSize, size_in_words
from cellstamp.source.find.shapes_extent import extent_in_words
from cellstamp.source.outlines import OutlineMask

_LARGEST_PIXEL = 0.5
"""Micrometres; with larger pixels, a wrong unit changes too little to be found."""
_FILLED = 0.5
"""Share of the image that the cells cover along each axis, at least, if they are in micrometres."""
_ROUNDING = 1.01
_FEWEST = 10
_TINY = 5.0
"""Side in micrometres of a square with the area of a cell; those of nearly all tissues are larger."""
_TO_PIXELS = """
from spatialdata.transformations import Affine, Scale, Sequence, get_transformation, set_transformation

axes = ("y", "x")
to_pixels = Scale([1 / {height!r}, 1 / {width!r}], axes)
places = get_transformation(sdata[{image!r}], get_all=True)
places = {{name: Affine(way.to_affine_matrix(axes, axes), axes, axes) for name, way in places.items()}}
places = {{name: Sequence([to_pixels, way]) for name, way in places.items()}}
set_transformation(sdata[{mask!r}], places, set_all=True)
"""


def seem_micrometres(mask: OutlineMask, of_image: PixelSize, of_grid: PixelSize) -> bool:
    """Return whether the cells of a mask seem to be in micrometres, though they are taken for pixels.

    Parameters
    ----------
    of_image, of_grid
        Micrometres per pixel of the image, and of the grid of `mask`.
    """
    if len(mask.ids) < _FEWEST or max(of_image) > _LARGEST_PIXEL:
        return False
    # share of the image that the cells cover if they are in micrometres
    covered = (mask.centers.max(axis=0)[::-1] + 0.5) / np.array(mask.shape) / np.array(of_image)
    if covered.max() > _ROUNDING or covered.min() < _FILLED or mask.centers.min() < -1:
        return False
    return mask.median_side() * float(np.sqrt(of_grid[0] * of_grid[1])) < _TINY


def in_words(mask: OutlineMask, of_image: PixelSize, image: str, *, in_project: bool) -> str:
    """Return a warning about such a mask, with a fix; `image` is the name of the image."""
    return (
        f"{extent_in_words(mask)}. This fits polygons in micrometres that are taken for pixels: a pixel is "
        f"{size_in_words(of_image)}. {_reload(of_image) if in_project else _code(mask, of_image, image)}"
    )


def _reload(size: PixelSize) -> str:
    height, width = size
    place = (
        f"pixel_size={height!r}" if height == width else f"transform=[[1 / {width!r}, 0, 0], [0, 1 / {height!r}, 0]]"
    )
    return f"If so, load them again: load_segmentation(..., {place}, overwrite=True)"


def _code(mask: OutlineMask, size: PixelSize, image: str) -> str:
    height, width = size
    code = _TO_PIXELS.format(height=height, width=width, image=image, mask=mask.name)
    return f"If so, set their transformation, where sdata is the SpatialData object:\n{indent(code, '    ')}"
