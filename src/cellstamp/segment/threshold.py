"""Otsu's threshold of a whole image, from counts of its blocks."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray
from scipy import ndimage as ndi
from skimage import filters

_UNTOLD = np.uint32(12)
"""Lowest bits of a float32 that are not looked at: what is left tells brightnesses that differ by 1 in 2,000 apart."""

DOUBTFUL = 0.65
"""Separability below which there may be but one class: of normally distributed noise it is 2 / pi, about 0.637."""

_SPARSE = 0.2
"""Share of bright pixels below which a low separability means little: few nuclei make little of the variance."""


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


@dataclass(frozen=True)
class Split:
    """Two classes of brightnesses, and how well they are told apart.

    Attributes
    ----------
    level
        Otsu's threshold: what is brighter is the upper class.
    separability
        Otsu's eta: the variance between the classes as a share of all variance, from 0 to 1; 0 when there is but one
        brightness.
    upper
        Share of the pixels that are in the upper class.
    """

    level: float
    separability: float
    upper: float

    @property
    def is_flat(self) -> bool:
        """Whether all pixels have one brightness."""
        return self.separability == 0

    @property
    def is_doubtful(self) -> bool:
        """Whether the threshold is about where it would be if all were noise: in the middle of a single peak."""
        return not self.is_flat and self.separability < DOUBTFUL and self.upper > _SPARSE


def otsu(keys: NDArray[np.uint32], counts: NDArray[np.int64]) -> Split:
    """Otsu's threshold of what was counted; keys may come more than once, from several blocks."""
    levels, where = np.unique(keys, return_inverse=True)
    totals = np.bincount(where, weights=counts)
    # the middle of the brightnesses with this key
    centers = ((levels << _UNTOLD) + (np.uint32(1) << (_UNTOLD - np.uint32(1)))).view(np.float32).astype(np.float64)
    if levels.size == 1:
        return Split(float(centers[0]), 0.0, 0.0)
    level = float(filters.threshold_otsu(hist=(totals, centers)))
    return Split(level, *_separability(totals / totals.sum(), centers, centers > level))


def _separability(shares: NDArray[np.float64], levels: NDArray[np.float64], is_upper: NDArray[np.bool_]) -> list[float]:
    """Otsu's eta, and the share of the upper class."""
    mean = shares @ levels
    upper = float(shares[is_upper].sum())
    # sum over both classes of share * (mean of the class - mean)**2
    moved = float(shares[is_upper] @ (levels[is_upper] - mean))
    return [moved**2 / (upper * (1 - upper)) / float(shares @ (levels - mean) ** 2), upper]
