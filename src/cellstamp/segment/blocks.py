"""Process one block of an image: picklable callables that take an area and return arrays."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from cellstamp.segment.cells import expanded, numbered
from cellstamp.segment.nuclei import find_nuclei
from cellstamp.segment.nucleus_settings import NucleusSettings, radius
from cellstamp.segment.threshold import count_levels, smoothed
from cellstamp.source.read.arrays import ArrayHandle, PixelSource
from cellstamp.source.values import Rect


@dataclass(frozen=True)
class Levels:
    """Brightnesses in a block and their counts; see `cellstamp.segment.threshold.count_levels`."""

    rect: Rect
    keys: NDArray[np.uint32]
    counts: NDArray[np.int64]


@dataclass(frozen=True)
class NamedNuclei:
    """The nuclei of a block.

    Attributes
    ----------
    rect
        The block.
    pixels
        uint64 (y, x): names of nuclei, 0 = background.
    names, n_pixels
        uint64 (n,) and int64 (n,): name of each nucleus with pixels in the block, and their number. The centre of a
        nucleus may lie in another block.
    """

    rect: Rect
    pixels: NDArray[np.uint64]
    names: NDArray[np.uint64]
    n_pixels: NDArray[np.int64]


@dataclass(frozen=True)
class Masks:
    """Both masks of a block: uint32 (y, x), 0 = background."""

    rect: Rect
    nucleus: NDArray[np.uint32]
    cytosol: NDArray[np.uint32]


@dataclass(frozen=True)
class CountLevels:
    """Count the brightnesses of a block after smoothing; picklable."""

    source: PixelSource
    channel: int
    smoothing: float

    def __call__(self, block: Rect) -> Levels:
        """Read a block and count its brightnesses.

        Raises
        ------
        InputError
            If a pixel is negative, NaN or infinite.
        """
        window = grown(block, radius(self.smoothing), self.source.shape)
        pixels = read_channel(self.source, self.channel, window)
        self.source.check_pixels(self.channel, pixels, window, brightest=math.inf)
        inside = np.ascontiguousarray(smoothed(pixels, self.smoothing)[block.slices(window)])
        return Levels(block, *count_levels(inside))


@dataclass(frozen=True)
class NameNuclei:
    """Find the nuclei of a block; picklable."""

    source: PixelSource
    channel: int
    settings: NucleusSettings

    def __call__(self, block: Rect) -> NamedNuclei:
        """Read a block and its surroundings, and find the nuclei."""
        window = grown(block, self.settings.halo, self.source.shape)
        trusted = grown(block, self.settings.reach, self.source.shape).slices(window)
        labels, seeds = find_nuclei(read_channel(self.source, self.channel, window), self.settings, trusted)
        rows, columns = np.divmod(seeds, window.shape[1])
        names = 1 + (rows + window.top) * self.source.shape[1] + (columns + window.left)
        inside = labels[block.slices(window)]
        n_pixels = np.bincount(inside.ravel(), minlength=names.size + 1)[1:]
        pixels = np.concatenate([[0], names]).astype(np.uint64)[inside]
        here = n_pixels > 0
        return NamedNuclei(block, pixels, names[here].astype(np.uint64), n_pixels[here].astype(np.int64))


@dataclass(frozen=True)
class MakeMasks:
    """Make the masks of a block; picklable.

    Attributes
    ----------
    names
        Image (y, x) of the names of nuclei.
    kept
        uint64 (n,): names that become ids, ascending.
    expansion
        Maximum distance of a cell's pixels from its nucleus, in pixels.
    """

    names: ArrayHandle
    kept: NDArray[np.uint64]
    expansion: int

    def __call__(self, block: Rect) -> Masks:
        """Read a block and its surroundings, and number the nuclei and cells."""
        height, width = self.names.shape
        window = grown(block, self.expansion, (height, width))
        nuclei = numbered(self.names.read(window), self.kept)
        cells = expanded(nuclei, self.expansion)
        inside = block.slices(window)
        return Masks(block, np.ascontiguousarray(nuclei[inside]), np.ascontiguousarray(cells[inside]))


def grown(block: Rect, by: int, shape: tuple[int, int]) -> Rect:
    """Return a block grown by pixels on each side, clipped to the image."""
    return Rect(block.top - by, block.bottom + by, block.left - by, block.right + by).clipped(*shape)


def read_channel(source: PixelSource, channel: int, rect: Rect) -> NDArray[Any]:
    """Read one channel of an area: (y, x)."""
    pixels: NDArray[Any] = source.image.read(rect, (slice(channel, channel + 1),))[0]
    return pixels


def tiles(shape: tuple[int, int], side: int) -> list[Rect]:
    """Return squares that cover an image, in reading order."""
    height, width = shape
    return [
        Rect(top, min(top + side, height), left, min(left + side, width))
        for top in range(0, height, side)
        for left in range(0, width, side)
    ]
