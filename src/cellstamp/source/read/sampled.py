"""Read an image or labels at the pixels of another grid, through an affine transformation."""

from __future__ import annotations

import hashlib
import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
from numpy.typing import NDArray

from cellstamp.source.read.arrays import ArrayHandle
from cellstamp.source.read.interpolation import Interpolation, Loops
from cellstamp.source.read.rounding import ROUNDING
from cellstamp.source.values import Rect, Way, in_digits

_PIECE_BYTES = 2**26
"""Bytes of pixels that are read at a time."""

_LARGEST_FOOTPRINT = 4096
"""Pixels of a side of a chunk's footprint that count; larger ones would make tiles too large."""


@dataclass(frozen=True)
class SampledArray:
    """An image or labels at the pixels of another grid, where its own array is sampled. It is small and picklable.

    Attributes
    ----------
    origin
        Its own array.
    grid
        Height and width of the grid in pixels.
    way
        From coordinates in the grid to coordinates in the array. Pixel i covers [i, i + 1) in both.
    how
        How values between the centres of pixels are computed.
    """

    origin: ArrayHandle
    grid: tuple[int, int]
    way: Way
    how: Interpolation = "nearest"

    @property
    def store(self) -> str:
        """Return the folder or URL of the store."""
        return self.origin.store

    @property
    def name(self) -> str:
        """Return the name of the element."""
        return self.origin.name

    @property
    def dtype(self) -> str:
        """Return the name of the data type, which sampling does not change."""
        return self.origin.dtype

    @property
    def dtypes(self) -> tuple[str, ...]:
        """Return the data type of each channel."""
        return self.origin.dtypes

    @property
    def loops(self) -> tuple[Loops, ...]:
        """Return the compiled loops that sample it."""
        dtype = np.dtype(self.dtype)
        return (Loops(self.how, f"uint{8 * dtype.itemsize}" if self.how == "nearest" else dtype.name),)

    @property
    def elements(self) -> tuple[SampledArray, ...]:
        """Return the elements that are read: this one."""
        return (self,)

    @property
    def shape(self) -> tuple[int, ...]:
        """Return (c, y, x) of an image, (y, x) of labels, in the grid."""
        return (*self.origin.shape[:-2], *self.grid)

    @property
    def chunks(self) -> tuple[int, ...]:
        """Return the size of a chunk, its footprint in the grid for y and x."""
        footprint = np.abs(self._inverse[:2, :2]) @ self.origin.chunks[-2:]
        sides = [min(max(1, round(side)), _LARGEST_FOOTPRINT, n) for side, n in zip(footprint, self.grid, strict=True)]
        return (*self.origin.chunks[:-2], *sides)

    @property
    def working_bytes(self) -> int:
        """Return the bytes of memory that reading takes beside the result."""
        return 2 * _PIECE_BYTES + self.origin.working_bytes

    def signature(self) -> str:
        """Return a digest that changes with every write to the array, and with the transformation."""
        return self._digest(self.origin.signature())

    def sample(self) -> str:
        """Return a digest that copies of the array share."""
        return self._digest(self.origin.sample())

    def pick(self, channels: Sequence[int]) -> SampledArray:
        """Return the image with these channels only, in this order."""
        return replace(self, origin=self.origin.pick(channels))

    def channels(self) -> list[tuple[slice, ...]]:
        """Return an index along the channel axis for each row of chunks; an empty one for labels."""
        return self.origin.channels()

    def read(self, rect: Rect, channels: tuple[slice, ...] = ()) -> NDArray[Any]:
        """Read an area of the grid; see `ArrayHandle.read`. Pixels outside of the grid or of the array are 0."""
        n_channels = [len(range(*part.indices(self.shape[0]))) for part in channels] or self.shape[:-2]
        pixels = np.empty((*n_channels, *rect.shape), self.dtype)
        self._fill(rect, channels, pixels)
        return pixels

    def read_into(self, rect: Rect, out: NDArray[Any]) -> None:
        """Read an area of the grid into an array of its shape, of the same dtype or a wider one."""
        for channels in self.channels():
            self._fill(rect, channels, out[channels])

    def on_grid(self, xy: NDArray[np.float64]) -> NDArray[np.float64]:
        """Return positions in the grid, given those in the array; (n, 2) as x, y from the centre of the first pixel."""
        inverse, yx = self._inverse, xy[:, ::-1] + 0.5
        return np.asarray((yx @ inverse[:2, :2].T + inverse[:2, 2])[:, ::-1] - 0.5)

    def covers(self, xy: NDArray[np.float64]) -> NDArray[np.bool_]:
        """Return which positions in the grid are on the array, bool (n,); x, y from the centre of the first pixel."""
        yx = xy[:, ::-1] + 0.5
        rows, columns = self._matrix[:2, :2] @ yx.T + self._matrix[:2, 2:]
        height, width = self.origin.shape[-2:]
        return np.asarray((rows >= 0) & (rows < height) & (columns >= 0) & (columns < width))

    def may_skip(self, block: Rect) -> bool:
        """Return whether an area of the array may have pixels without a sample: outside of the grid, or too small."""
        inverse = self._inverse
        low, high = _box(inverse, *block.shape, block.top, block.left)
        is_inside = (low > -ROUNDING).all() and (high < np.array(self.grid) + ROUNDING).all()
        return not (is_inside and _holds_a_center(inverse[:2, :2]))

    @property
    def _matrix(self) -> NDArray[np.float64]:
        return np.array([*self.way, (0, 0, 1)], np.float64)

    @property
    def _inverse(self) -> NDArray[np.float64]:
        return np.asarray(np.linalg.inv(self._matrix), np.float64)

    def _digest(self, of_origin: str) -> str:
        return hashlib.sha256(f"{of_origin} {self.grid} {in_digits(self.way)} {self.how}".encode()).hexdigest()

    def _fill(self, rect: Rect, channels: tuple[slice, ...], out: NDArray[Any]) -> None:
        inside = rect.clipped(*self.grid)
        if inside != rect:
            out[...] = 0
        n_channels = out.size // max(1, rect.shape[0] * rect.shape[1])
        for piece in self._pieces(inside, n_channels * np.dtype(self.dtype).itemsize):
            out[..., *piece.slices(rect)] = self._sampled(piece, channels, n_channels)

    def _pieces(self, rect: Rect, pixel_bytes: int) -> Iterator[Rect]:
        """Divide an area until both it and the pixels around its positions are small."""
        if rect.is_empty:
            return
        largest = max(_area(rect), _area(self._around(rect)))
        if largest * pixel_bytes <= _PIECE_BYTES or _area(rect) == 1:
            yield rect
            return
        for half in _halves(rect):
            yield from self._pieces(half, pixel_bytes)

    def _around(self, rect: Rect) -> Rect:
        """Return the area of the array around the positions of an area of the grid, with a pixel on each side."""
        # centres of the outermost pixels; an area reaches to their edges
        edge = 0.0 if self.how == "area" else 0.5
        height, width = (n - 2 * edge for n in rect.shape)
        low, high = _box(self._matrix, height, width, rect.top + edge, rect.left + edge)
        (top, left), (bottom, right) = np.floor(low).astype(int).tolist(), np.floor(high).astype(int).tolist()
        return Rect(top - 1, bottom + 2, left - 1, right + 2).clipped(*self.origin.shape[-2:])

    def _sampled(self, rect: Rect, channels: tuple[slice, ...], n_channels: int) -> NDArray[Any]:
        # imported here: it loads compiled code, which most extractions do not need
        from cellstamp.source.read.loops import sample

        around = self._around(rect)
        out = np.zeros((n_channels, *rect.shape), self.dtype)
        if not around.is_empty:
            window = np.require(self.origin.read(around, channels), self.dtype, ["C", "W"])
            window = window.reshape(n_channels, *around.shape)
            corner, first = np.array([around.top, around.left]), np.array([rect.top, rect.left])
            sample(window, corner, self.origin.shape[-2:], np.array(self.way), first, self.how, out)
        return out if channels or len(self.shape) == 3 else out[0]


def _box(
    matrix: NDArray[np.float64], height: float, width: float, top: float, left: float
) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Return the smallest and the largest (y, x) of the transformed corners of an area."""
    ys, xs = np.array([0, 0, height, height]) + top, np.array([0, width, 0, width]) + left
    corners = matrix[:2] @ np.stack([ys, xs, np.ones(4)])
    return corners.min(axis=1), corners.max(axis=1)


def _holds_a_center(linear: NDArray[np.float64]) -> bool:
    """Return whether each transformed pixel surely contains the centre of one of the grid's."""
    is_aligned = np.count_nonzero(np.abs(linear) > ROUNDING) == 2
    # else: a square with the side of a pixel's diagonal, turned in any way
    sides = np.abs(linear).sum(axis=1) if is_aligned else np.linalg.svd(linear, compute_uv=False) / math.sqrt(2)
    return bool((sides > 1 - ROUNDING).all())


def _area(rect: Rect) -> int:
    return 0 if rect.is_empty else rect.shape[0] * rect.shape[1]


def _halves(rect: Rect) -> tuple[Rect, Rect]:
    """Divide an area in two along its longer side."""
    (height, width), (top, bottom, left, right) = rect.shape, (rect.top, rect.bottom, rect.left, rect.right)
    if height >= width:
        middle = top + height // 2
        return Rect(top, middle, left, right), Rect(middle, bottom, left, right)
    middle = left + width // 2
    return Rect(top, bottom, left, middle), Rect(top, bottom, middle, right)
