"""Read planes of cells for a screen, as bytes that the front end colours."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from cellstamp.gallery.files import CellImages

_SAMPLED = 100
"""Cells that set the range of a channel that is not normalised."""
_HEADROOM = 2.0
"""Brightest value that is kept / brightest value of the sample."""
_LOW, _HIGH = 0.001, 0.999
"""Quantiles of all and of positive pixels at which a channel is black and white, as in pictures."""


@dataclass(frozen=True)
class Range:
    """Values of a plane that bytes can hold, and those that are black and white at first.

    Values are fractions of the largest value of the type. A byte is ``255 * sqrt((value - low) / (high - low))``: the
    root keeps differences of dark pixels, which contrast sliders then show.
    """

    low: float
    high: float
    black: float
    white: float

    def table(self, values: NDArray[np.float32]) -> NDArray[np.uint8]:
        """Return the bytes of values of any shape."""
        known = np.nan_to_num(values, posinf=1.0, neginf=0.0)
        part = (known - np.float32(self.low)) / np.float32(self.high - self.low)
        return np.asarray(np.rint(255 * np.sqrt(np.clip(part, 0, 1))), np.uint8)


def ranges_of(images: CellImages) -> list[Range]:
    """Return the range of each plane: 0 to 1 for masks and normalised channels, else that of some cells."""
    unit = Range(0, 1, 0, 1)
    if images.is_normalized or not images.n_cells:
        return [unit] * images.n_planes
    rows = np.unique(np.linspace(0, images.n_cells - 1, _SAMPLED).astype(np.int64))
    channels = list(range(images.n_masks, images.n_planes))
    sample = images.scaled(images.read(rows, channels))
    return [unit] * images.n_masks + [_range_of(sample[:, number]) for number in range(len(channels))]


def _range_of(sample: NDArray[np.float32]) -> Range:
    lit = sample[sample > 0]
    if not lit.size:
        return Range(0, 1, 0, 1)
    black, white = float(np.quantile(sample, _LOW)), float(np.quantile(lit, _HIGH))
    return Range(0, min(1, _HEADROOM * float(lit.max())), min(black, white), max(white, black + 1e-6))


class PlaneEncoder:
    """Turns stored planes into bytes. For types of 16 bits and less, a table has the byte of each value."""

    def __init__(self, images: CellImages, ranges: Sequence[Range]) -> None:
        self._images, self._ranges = images, ranges
        self._tables = [_byte_table(images, each) for each in ranges]

    def encode(self, rows: NDArray[np.int64], planes: Sequence[int], crop: int, step: int) -> NDArray[np.uint8]:
        """Read planes of cells: uint8 (n_cells, n_planes, side, side).

        Parameters
        ----------
        crop
            Side in pixels of the part around the centre.
        step
            Squares of `step` x `step` pixels are averaged.
        """
        images = self._images.read(rows, planes)
        first = (images.shape[-1] - crop) // 2
        images = images[..., first : first + crop, first : first + crop]
        coded = np.empty(images.shape, np.uint8)
        for place, plane in enumerate(planes):
            coded[:, place] = self._bytes_of(images[:, place], plane)
        return coded if step == 1 else _averaged(coded, step)

    def _bytes_of(self, images: NDArray[Any], plane: int) -> NDArray[np.uint8]:
        table = self._tables[plane]
        if table is None:
            return self._ranges[plane].table(self._images.scaled(images))
        numbers = np.ascontiguousarray(images).view(np.uint8 if images.dtype.itemsize == 1 else np.uint16)
        return np.asarray(table[numbers])


def _byte_table(images: CellImages, limits: Range) -> NDArray[np.uint8] | None:
    if images.dtype.itemsize > 2:
        return None
    numbers = np.arange(2 ** (8 * images.dtype.itemsize), dtype=f"u{images.dtype.itemsize}")
    with np.errstate(invalid="ignore"):  # some of all float16 are signalling NaN
        return limits.table(images.scaled(numbers.view(images.dtype)))


def _averaged(coded: NDArray[np.uint8], step: int) -> NDArray[np.uint8]:
    side = coded.shape[-1] // step
    squares = coded[..., : side * step, : side * step].reshape(*coded.shape[:2], side, step, side, step)
    return np.asarray(squares.mean(axis=(-3, -1), dtype=np.float32), np.uint8)
