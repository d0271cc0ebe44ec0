"""Choose the size of the crops from the masks, for ``image_size: auto``, or from a length."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from cellstamp.cells.plan import window_corners
from cellstamp.config import ExtractionConfig
from cellstamp.config_rules import PhysicalLength
from cellstamp.errors import ConfigError
from cellstamp.lengths import even_pixels, is_square, size_in_words
from cellstamp.source.find.pixel_sizes import unknown_pixel_size
from cellstamp.source.read.arrays import Mask, PixelSource
from cellstamp.source.read.extents import Run, find_extents
from cellstamp.source.values import Centers

SHARE = 0.99
"""Share of the cells that the measured size holds completely."""


def measure_size(cells: Centers, source: PixelSource, run: Run) -> int:
    """Return the smallest even size of a crop that holds `SHARE` of the cells completely.

    Parameters
    ----------
    cells
        The cells, at least one. Crops are centred on them, and hold the cell in each mask.
    run
        Applies a callable to every block of a mask.

    Returns
    -------
    int
        Side of the crop, in pixels, at least 2. It depends on masks, centres and the choice of cells only.
    """
    halves = np.max([_half_sizes(cells, mask, run) for mask in source.masks], axis=0)
    return 2 * int(np.quantile(halves, SHARE, method="inverted_cdf"))


def size_in_pixels(config: ExtractionConfig, source: PixelSource) -> ExtractionConfig:
    """Return the configuration with ``image_size`` in pixels of the crops, if it is a length.

    Raises
    ------
    ConfigError
        If the size of a pixel is unknown, or pixels are not square.
    """
    length, pixel = config.image_size, source.crop_pixel_size
    if not isinstance(length, PhysicalLength):
        return config
    if pixel is None:
        raise ConfigError(f"image_size = {length!r}: {unknown_pixel_size(source.image.elements[0])}")
    if not is_square(pixel):
        raise ConfigError(
            f"image_size = {length!r}: pixels of image '{source.image.name}' in {source.image.store} are "
            f"{size_in_words(pixel)}, not square. Set crop_pixel_size, or image_size to a number of pixels"
        )
    return config.model_copy(update={"image_size": even_pixels(length.micrometres, min(pixel))})


def _half_sizes(cells: Centers, mask: Mask, run: Run) -> NDArray[np.int64]:
    """Return half the side, in pixels, of the smallest crop that holds each cell in one mask; 1 for absent cells."""
    height, width = mask.shape[-2:]
    everywhere = np.array([[0, height, 0, width]])
    extents = find_extents(mask, cells.ids, everywhere, run)
    halves = np.ones(len(cells), np.int64)
    rows = np.searchsorted(cells.ids.astype(np.int64), extents.ids)
    halves[rows] = half_sizes(cells[rows], extents.boxes)
    return halves


def half_sizes(cells: Centers, boxes: NDArray[np.int64]) -> NDArray[np.int64]:
    """Return half the side, in pixels, of the smallest crop around each centre that holds a box.

    Parameters
    ----------
    cells
        Centres of the crops.
    boxes
        int64 (n, 4): first row, last row, first column, last column.
    """
    x, y = window_corners(cells, 0).T
    first_row, last_row, first_column, last_column = boxes.T
    # a crop holds as many pixels before its centre as half its side, and one less behind it
    halves: NDArray[np.int64] = np.max([y - first_row, last_row - y + 1, x - first_column, last_column - x + 1], axis=0)
    return halves
