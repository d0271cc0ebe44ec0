"""How values between the centres of pixels are computed, and the compiled loops for that."""

from __future__ import annotations

from typing import Literal, NamedTuple

import numpy as np

Interpolation = Literal["nearest", "bilinear", "area"]
"""``"nearest"`` copies pixels, ``"bilinear"`` interpolates between the four nearest. ``"area"`` is the mean of the area
of a pixel of the grid if that is larger than a pixel of the array, otherwise bilinear.
"""


class Loops(NamedTuple):
    """Compiled loops that sample pixels.

    Attributes
    ----------
    how
        How they do it.
    dtype
        Type of the pixels; nearest ones are copied by loops for unsigned integers of their size.
    """

    how: Interpolation
    dtype: str

    def __str__(self) -> str:
        kind = f"{8 * np.dtype(self.dtype).itemsize}-bit" if self.how == "nearest" else self.dtype
        return f"{kind} pixels with other positions ({'mean of areas' if self.how == 'area' else self.how})"
