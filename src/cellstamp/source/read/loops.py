"""Sample a window of pixels with compiled loops, which can be loaded or compiled before the first batch."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from cellstamp.compiling.cache_folders import is_kept, note_kept
from cellstamp.source.read.areas import average_areas
from cellstamp.source.read.interpolation import Loops
from cellstamp.source.read.sampling import blend, take_nearest

_SMALLER, _TURNED = np.array([[2.0, 0, 0], [0, 2, 0]]), np.array([[1.2, -1.6, 0], [1.6, 1.2, 0]])


def sample(
    window: NDArray[Any],
    corner: NDArray[np.int64],
    sides: Sequence[int],
    way: NDArray[np.float64],
    first: NDArray[np.int64],
    how: str,
    out: NDArray[Any],
) -> None:
    """Write the pixels of a grid, sampled from a window of an array.

    Parameters
    ----------
    window, corner, way, first, out
        See `cellstamp.source.read.sampling.take_nearest`.
    sides
        Height and width of the sampled array.
    how
        An `Interpolation`.
    """
    if how == "area":
        average_areas(window, corner, sides, way, first, out)
    elif how == "nearest":
        bits = f"u{out.dtype.itemsize}"  # compiled once for all types of one size
        take_nearest(window.view(bits), corner, way, first, out.view(bits))
    else:
        blend(window, corner, np.array(sides), way, first, out.dtype.kind != "f", out)


def load_loops(loops: Loops) -> None:
    """Load or compile loops by sampling a pixel; keep the code for later runs."""
    start = np.zeros(2, np.int64)
    for way in (_SMALLER, _TURNED):  # areas of parallel and of turned pixels have separate loops
        pixel = np.zeros((1, 1, 1), loops.dtype)
        sample(pixel, start, (1, 1), way, start, loops.how, np.zeros_like(pixel))
    if not is_kept(loops):
        note_kept(loops)
