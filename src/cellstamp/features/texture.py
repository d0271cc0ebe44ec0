"""Measure texture with scikit-image: how often two grey levels are next to each other (R. Haralick et al., 1973)."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from cellstamp.errors import ConfigError
from cellstamp.features.declared import TEXTURES

LEVELS = 32
"""Number of grey levels, from the smallest to the largest value in the mask."""
_ANGLES = (0, np.pi / 4, np.pi / 2, 3 * np.pi / 4)


def check_installed() -> None:
    """Check that scikit-image is installed.

    Raises
    ------
    ConfigError
        If it is not.
    """
    try:
        import skimage.feature  # noqa: F401
    except ImportError as error:
        message = "features: texture needs scikit-image: pip install 'cellstamp[segmentation]'"
        raise ConfigError(message) from error


def measure_texture(masks: NDArray[np.bool_], image: NDArray[Any]) -> list[float]:
    """Measure all channels in all masks.

    Parameters
    ----------
    masks
        bool (n_masks, y, x).
    image
        (n_channels, y, x), the same area.

    Returns
    -------
    list of float
        For each channel and mask the features in `TEXTURES`, each the mean of four directions; NaN without two pixels
        next to each other in each of these.
    """
    return [value for channel in image for mask in masks for value in _measure(mask, channel)]


def _measure(mask: NDArray[np.bool_], channel: NDArray[Any]) -> list[float]:
    from skimage.feature import graycomatrix, graycoprops

    if not mask.any():
        return [np.nan] * len(TEXTURES)
    # pixels outside of the mask have level 0, which is left out
    matrix = graycomatrix(_levels(mask, channel), (1,), _ANGLES, levels=LEVELS + 1, symmetric=True)[1:, 1:]
    if not matrix.any(axis=(0, 1)).all():
        return [np.nan] * len(TEXTURES)
    names = (each.name.removeprefix("texture_") for each in TEXTURES)
    return [float(graycoprops(matrix, name).mean()) for name in names]


def _levels(mask: NDArray[np.bool_], channel: NDArray[Any]) -> NDArray[np.uint8]:
    """Return the grey level of each pixel, from 1; 0 outside of the mask."""
    values = channel[mask].astype(np.float64)
    low, high = values.min(), values.max()
    levels = np.zeros(mask.shape, np.uint8)
    step = (high - low) / LEVELS
    levels[mask] = 1 if step == 0 else 1 + np.minimum((values - low) // step, LEVELS - 1)
    return levels
