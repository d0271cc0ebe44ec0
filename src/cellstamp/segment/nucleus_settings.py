"""Parameters for finding nuclei, and the size of the surroundings that a block needs."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Literal

OPENING = 2
"""Radius, in pixels, of the disk that smooths outlines and removes thin threads."""

_TRUNCATE = 4.0
"""Sigmas at which scipy truncates a Gaussian."""


@dataclass(frozen=True)
class NucleusSettings:
    """Parameters for finding nuclei; `cellstamp.segmentation_config.SegmentationConfig` explains them.

    Attributes
    ----------
    method, smoothing, window, min_distance, min_area
        As in the configuration.
    level
        Nuclei are brighter than this: Otsu's threshold of the smoothed image, or a fraction of it.
    """

    method: Literal["local", "otsu"]
    smoothing: float
    window: int
    min_distance: int
    min_area: int
    level: float = 0.0

    @property
    def deepest(self) -> int:
        """Maximum depth inside a nucleus, in pixels; larger distances are clipped to it."""
        return self.window // 2

    @property
    def depth_smoothing(self) -> float:
        """Sigma of the Gaussian that prevents small bays of an outline from splitting a nucleus."""
        return 0.4 * self.min_distance

    @property
    def reach(self) -> int:
        """Maximum distance from the centre of a nucleus to its edge, in pixels: half the window."""
        return self.window // 2

    @property
    def halo(self) -> int:
        """Pixels around a block that affect its nuclei, if no nucleus is larger than the window."""
        local = radius((self.window - 1) / 6) if self.method == "local" else 0
        mask = radius(self.smoothing) + local + 2 * OPENING
        seeds = self.deepest + radius(self.depth_smoothing) + self.min_distance
        return mask + seeds + self.reach


def radius(sigma: float) -> int:
    """Return the radius of a truncated Gaussian, in pixels."""
    return math.floor(_TRUNCATE * sigma + 0.5)
