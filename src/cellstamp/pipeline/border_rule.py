"""Decide which cells are too close to the image border, and whether crops fit into the image."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np
from numpy.typing import NDArray

from cellstamp.cells.plan import inside_image
from cellstamp.config import ExtractionConfig
from cellstamp.errors import ConfigError
from cellstamp.source.read.arrays import PixelSource
from cellstamp.source.values import Centers


def cells_inside(cells: Centers, config: ExtractionConfig, shape: tuple[int, int]) -> NDArray[np.bool_]:
    """Return which cells can be extracted, bool (n,): all with padding, else those whose crop is inside of the image.

    Parameters
    ----------
    shape
        Height and width of the image in pixels.
    """
    return np.ones(len(cells), np.bool_) if config.border == "pad" else inside_image(cells, config.image_size, shape)


def check_crop_fits(config: ExtractionConfig, source: PixelSource, *, measured: bool = False) -> None:
    """Check that crops are not larger than the image, unless they are padded.

    Parameters
    ----------
    measured
        Whether ``image_size`` was measured in the masks.

    Raises
    ------
    ConfigError
        If ``image_size`` is larger than the image's shorter side.
    """
    # while the size is to be measured, it is 0
    if config.border == "drop" and config.image_size > min(source.shape):
        size, mask = f"image_size = {config.image_size}:", source.main_mask.name
        begin = f"image_size = 'auto': the cells of '{mask}' need {config.image_size}, which" if measured else size
        raise ConfigError(f"{begin} must not be larger than {_image_of(source)}{_cause(source, measured=measured)}")


def mostly_padding(config: ExtractionConfig, source: PixelSource) -> Iterator[str]:
    """Yield a warning if padded crops are larger than both sides of the image."""
    if config.border == "pad" and config.image_size > max(source.shape):
        yield (
            f"image_size = {config.image_size} is larger than {_image_of(source)}. Single-cell images are then mostly "
            "padding. Choose a smaller image_size"
        )


def _image_of(source: PixelSource) -> str:
    """Return the size of the image and its name, for messages."""
    height, width = source.shape
    pixels = "pixels" if source.scale == (1.0, 1.0) else "pixels of the crops"
    return f"the image, which is {height} x {width} {pixels} (y, x): '{source.image.name}' in {source.image.store}"


def _cause(source: PixelSource, *, measured: bool) -> str:
    """Return a fix; if cells were measured to be larger than the image, their ids are wrong."""
    if not measured:
        return "; or set border to 'pad'"
    if len(source.masks) == 1:
        return ". If one id stands for many cells, number them with skimage.measure.label(mask). Or set border to 'pad'"
    return (
        f". Do '{source.mask_names[0]}' and '{source.mask_names[-1]}' have the same cells under the same ids? "
        "cellstamp.match_masks gives them the same ids. Or set border to 'pad'"
    )
