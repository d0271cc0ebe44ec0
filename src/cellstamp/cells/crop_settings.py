"""Settings of the crops: how single-cell images are cut."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

if TYPE_CHECKING:
    from cellstamp.compression import Codec
    from cellstamp.config_rules import StampType


WIDER = 3
"""Side of the window in which the features of a cell are measured that touches the edge of its crop, in crops."""


@dataclass(frozen=True)
class CropSettings:
    """How single-cell images are cut.

    Attributes
    ----------
    image_size
        Side of a crop in pixels.
    limits
        For each channel, the values that become 0 and 1.
    per_cell
        Whether ``limits`` are quantiles of each crop, or values.
    brightest
        For each channel, the largest value that a pixel may have.
    apply_masks
        Whether channels are multiplied by the cell mask.
    dtype
        Type of the single-cell images; 1 becomes the largest value of an integer type.
    compression
        Codec of the chunks.
    planes_per_chunk
        Number of planes that are encoded together.
    """

    image_size: int
    limits: tuple[tuple[float, float], ...]
    per_cell: bool
    brightest: tuple[float, ...]
    apply_masks: bool
    dtype: StampType
    compression: Codec | None
    planes_per_chunk: int = 1

    @property
    def plane_bytes(self) -> int:
        """Bytes of one plane."""
        return self.image_size**2 * np.dtype(self.dtype).itemsize
