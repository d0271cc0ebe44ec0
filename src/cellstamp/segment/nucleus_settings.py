"""How nuclei are found, in numbers, and how far around a block one has to look for it."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Literal

OPENING = 2
"""Radius, in pixels, of the disk that smooths outlines and takes threads away."""

_TRUNCATE = 4.0
"""Sigmas after which scipy cuts a Gaussian off."""


@dataclass(frozen=True)
class NucleusSettings:
    """How nuclei are found; see `cellstamp.segmentation_config.SegmentationConfig` for what the numbers mean.

    Attributes
    ----------
    method, smoothing, window, min_distance, min_area
        As in the configuration.
    level
        What is not brighter is no nucleus: Otsu's threshold of the smoothed image, or a share of it.
    """

    method: Literal["local", "otsu"]
    smoothing: float
    window: int
    min_distance: int
    min_area: int
    level: float = 0.0

    @property
    def deepest(self) -> int:
        """Pixels from the edge of a nucleus to its middle, at most: what is further away counts as so far."""
        return self.window // 2

    @property
    def depth_smoothing(self) -> float:
        """Sigma of the Gaussian that keeps small bays of an outline from dividing a nucleus."""
        return 0.4 * self.min_distance

    @property
    def reach(self) -> int:
        """Pixels from the middle of a nucleus to its edge, at most: a nucleus is no larger than the window."""
        return self.window // 2

    @property
    def halo(self) -> int:
        """Pixels around a block that have a say in what the nuclei in it are, each at most a window large."""
        local = radius((self.window - 1) / 6) if self.method == "local" else 0
        mask = radius(self.smoothing) + local + 2 * OPENING
        seeds = self.deepest + radius(self.depth_smoothing) + self.min_distance
        return mask + seeds + self.reach


def radius(sigma: float) -> int:
    """Pixels that a Gaussian reaches."""
    return math.floor(_TRUNCATE * sigma + 0.5)
