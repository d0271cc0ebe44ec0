"""How single-cell images are made, and those of one finished batch."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from cellstamp.encoded_cells import EncodedCells

if TYPE_CHECKING:
    from cellstamp.compression import Compression
    from cellstamp.rules import StampType


@dataclass(frozen=True)
class CropSettings:
    """How stamps are made.

    Attributes
    ----------
    image_size
        Side of a stamp in pixels.
    limits
        For each channel what becomes 0 and what becomes 1.
    per_cell
        Whether these are quantiles of each stamp, or values.
    brightest
        The largest value that a pixel of the image may have.
    apply_masks
        Whether channels are multiplied by the cell mask.
    dtype
        Of the stamps; what is 1 is the largest value of an integer type.
    compression
        HDF5 filter.
    """

    image_size: int
    limits: tuple[tuple[float, float], ...]
    per_cell: bool
    brightest: float
    apply_masks: bool
    dtype: StampType
    compression: Compression | None

    @property
    def plane_bytes(self) -> int:
        """Memory of one plane."""
        return self.image_size**2 * np.dtype(self.dtype).itemsize


@dataclass(frozen=True)
class Stamps(EncodedCells):
    """Finished single-cell images of one batch, and the time they took.

    Attributes
    ----------
    read_s, cut_s
        Seconds for reading pixels, and for cutting and encoding.
    """

    read_s: float
    cut_s: float

    @property
    def nbytes(self) -> int:
        """Memory of the result."""
        return self.payload.nbytes + self.sizes.nbytes + self.rows.nbytes
