"""Compute Otsu's threshold of a whole image from counts of its blocks."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray
from scipy import ndimage as ndi
from skimage import filters

_IGNORED = np.uint32(12)
"""Lowest bits of a float32 that are ignored. The other bits resolve differences of 1 in 2,000."""

DOUBTFUL = 0.65
"""Separability below which nuclei may be noise. Normally distributed noise has 2 / pi, about 0.637."""

_SPARSE = 0.2
"""Share of bright pixels below which separability is ignored: few nuclei add little to the variance."""


def smoothed(pixels: NDArray[Any], sigma: float) -> NDArray[np.float32]:
    """Return the image (y, x) as float32, smoothed by a Gaussian; pixels beyond its edges repeat the edges."""
    image = pixels.astype(np.float32)
    return ndi.gaussian_filter(image, sigma, mode="nearest") if sigma else image


def count_levels(image: NDArray[np.float32]) -> tuple[NDArray[np.uint32], NDArray[np.int64]]:
    """Count the brightnesses in an image without negative pixels.

    Floats >= 0 sort like their bits, so counting needs no range of brightness.

    Returns
    -------
    keys
        uint32 (n,): upper bits of the brightnesses, ascending.
    counts
        int64 (n,): number of pixels for each key.
    """
    counts = np.bincount((image.view(np.uint32) >> _IGNORED).ravel())
    keys = np.flatnonzero(counts)
    return keys.astype(np.uint32), counts[keys].astype(np.int64)


@dataclass(frozen=True)
class Split:
    """Two classes of brightnesses, and their separability.

    Attributes
    ----------
    level
        Otsu's threshold; brighter pixels are the upper class.
    separability
        Otsu's eta, 0 to 1: variance between the classes / total variance; 0 for an image of one brightness.
    upper
        Share of the pixels in the upper class.
    """

    level: float
    separability: float
    upper: float

    @property
    def is_flat(self) -> bool:
        """Whether all pixels have the same brightness."""
        return self.separability == 0

    @property
    def is_doubtful(self) -> bool:
        """Whether the threshold may cut a single peak of noise in the middle."""
        return not self.is_flat and self.separability < DOUBTFUL and self.upper > _SPARSE


def otsu(keys: NDArray[np.uint32], counts: NDArray[np.int64]) -> Split:
    """Compute Otsu's threshold of counted brightnesses; a key may occur once for each block."""
    levels, where = np.unique(keys, return_inverse=True)
    totals = np.bincount(where, weights=counts)
    # centre of the brightnesses with this key
    centers = ((levels << _IGNORED) + (np.uint32(1) << (_IGNORED - np.uint32(1)))).view(np.float32).astype(np.float64)
    if levels.size == 1:
        return Split(float(centers[0]), 0.0, 0.0)
    level = float(filters.threshold_otsu(hist=(totals, centers)))
    return Split(level, *_separability(totals / totals.sum(), centers, centers > level))


def _separability(shares: NDArray[np.float64], levels: NDArray[np.float64], is_upper: NDArray[np.bool_]) -> list[float]:
    """Return Otsu's eta, and the share of the upper class."""
    mean = shares @ levels
    upper = float(shares[is_upper].sum())
    # sum over both classes of share * (mean of the class - mean)**2
    moved = float(shares[is_upper] @ (levels[is_upper] - mean))
    return [moved**2 / (upper * (1 - upper)) / float(shares @ (levels - mean) ** 2), upper]
