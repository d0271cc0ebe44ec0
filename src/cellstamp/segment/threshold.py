"""Otsu's threshold of a whole image, from counts of its blocks."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray
from scipy import ndimage as ndi
from skimage import filters

_UNTOLD = np.uint32(12)
"""Lowest bits of a float32 that are not looked at: what is left tells brightnesses that differ by 1 in 2,000 apart."""


def smoothed(pixels: NDArray[Any], sigma: float) -> NDArray[np.float32]:
    """The image (y, x) as float32, blurred; its edges are repeated beyond it."""
    image = pixels.astype(np.float32)
    return ndi.gaussian_filter(image, sigma, mode="nearest") if sigma else image


def count_levels(image: NDArray[np.float32]) -> tuple[NDArray[np.uint32], NDArray[np.int64]]:
    """The brightnesses in an image without negative pixels, as keys that ascend with them, and how often each is there.

    Numbers that are not negative are ordered like their bits: so no range has to be known before.
    """
    counts = np.bincount((image.view(np.uint32) >> _UNTOLD).ravel())
    keys = np.flatnonzero(counts)
    return keys.astype(np.uint32), counts[keys].astype(np.int64)


def otsu(keys: NDArray[np.uint32], counts: NDArray[np.int64]) -> float:
    """Otsu's threshold of what was counted; keys may come more than once, from several blocks."""
    levels, where = np.unique(keys, return_inverse=True)
    totals = np.bincount(where, weights=counts)
    # the middle of the brightnesses with this key
    centers = ((levels << _UNTOLD) + (np.uint32(1) << (_UNTOLD - np.uint32(1)))).view(np.float32)
    if levels.size == 1:
        return float(centers[0])
    return float(filters.threshold_otsu(hist=(totals, centers.astype(np.float64))))
