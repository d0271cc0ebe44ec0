"""Compute exact quantiles of an image's channels, in memory that does not depend on the image's size.

Non-negative numbers sort like their bits. The value of a rank is found 16 bits at a time, as in a radix sort: one pass
counts pixels by their upper 16 bits, the next counts the pixels with matching bits by the next 16. An image of 8 or 16
bits takes one pass, 32 bits two, 64 bits four.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from cellstamp.source.read.arrays import PixelSource
from cellstamp.source.read.centers import blocks_of
from cellstamp.source.values import Rect

_DIGIT = 16
"""Bits counted in one pass."""


@dataclass(frozen=True)
class ChannelBlock:
    """Area of one channel."""

    channel: int
    rect: Rect

    @property
    def shape(self) -> tuple[int, int]:
        """Return the numbers of rows and columns."""
        return self.rect.shape


@dataclass(frozen=True)
class Counts:
    """Numbers of pixels by their leading bits.

    Attributes
    ----------
    channel
        int64 (1,).
    keys
        uint64, ascending: the bits compared so far.
    counts
        int64: number of pixels that begin with them.
    """

    channel: NDArray[np.int64]
    keys: NDArray[np.uint64]
    counts: NDArray[np.int64]


@dataclass(frozen=True)
class DigitCounts:
    """Picklable callable that counts the pixels of an area of a channel.

    Attributes
    ----------
    source
        The image.
    prefixes
        For each channel, the upper bits of pixels to count; None in the first pass: all pixels.
    shift
        Number of lower bits that later passes count.
    brightest
        Largest allowed value of a pixel.
    """

    source: PixelSource
    prefixes: Mapping[int, NDArray[np.uint64]] | None
    shift: int
    brightest: float

    def __call__(self, block: ChannelBlock) -> Counts:
        """Read one area and count its pixels.

        Raises
        ------
        InputError
            If a pixel is invalid; see `PixelSource.check_pixels`.
        """
        pixels = self.source.image.read(block.rect, (slice(block.channel, block.channel + 1),)).ravel()
        self.source.check_pixels(block.channel, pixels, block.rect, brightest=self.brightest)
        bits = _bits(pixels)
        keys, counts = self._count(bits, block.channel)
        return Counts(np.array([block.channel]), keys, counts)

    def _count(self, bits: NDArray[Any], channel: int) -> tuple[NDArray[np.uint64], NDArray[np.int64]]:
        if self.prefixes is None:
            return _histogram(bits >> bits.dtype.type(self.shift))
        keys, counts = [], []
        for prefix in self.prefixes[channel]:
            upper = bits >> bits.dtype.type(self.shift + _DIGIT)
            lower = bits[upper == prefix] >> bits.dtype.type(self.shift) & bits.dtype.type(2**_DIGIT - 1)
            digits, found = _histogram(lower)
            keys.append((prefix << np.uint64(_DIGIT)) | digits)
            counts.append(found)
        return np.concatenate(keys), np.concatenate(counts)


Run = Callable[[DigitCounts, Sequence[ChannelBlock]], Iterable[Counts]]


def channel_quantiles(
    source: PixelSource, quantiles: Sequence[tuple[float, float]], run: Run = map, *, brightest: float = math.inf
) -> list[tuple[float, float]]:
    """Compute two quantiles of every channel of an image.

    Parameters
    ----------
    source
        The image; its pixels are finite and not negative.
    quantiles
        Lower and upper quantile for each channel, from 0 to 1.
    run
        Applies a callable to every area, like ``map``. Results may come in any order.
    brightest
        Largest allowed value of a pixel.

    Returns
    -------
    list of tuple
        For each channel, exactly the result of ``numpy.quantile`` for its pixels as float64.

    Raises
    ------
    InputError
        If a pixel is invalid; see `PixelSource.check_pixels`.
    """
    n_pixels = math.prod(source.shape)
    ranks = [sorted({rank for q in pair for rank in _neighbours(n_pixels, q)}) for pair in quantiles]
    values = _values_of_rank(source, ranks, run, brightest)
    return [
        (_interpolated(n_pixels, lower, known), _interpolated(n_pixels, upper, known))
        for (lower, upper), known in zip(quantiles, values, strict=True)
    ]


def _neighbours(n_pixels: int, q: float) -> tuple[int, int]:
    """Return the ranks of the two values around a quantile."""
    below = math.floor((n_pixels - 1) * q)
    return below, min(below + 1, n_pixels - 1)


def _interpolated(n_pixels: int, q: float, known: Mapping[int, float]) -> float:
    below, above = _neighbours(n_pixels, q)
    a, b, share = known[below], known[above], (n_pixels - 1) * q - below
    # numpy interpolates from the nearer end, which decides the last bit
    return b - (b - a) * (1 - share) if share >= 0.5 else a + (b - a) * share


def _values_of_rank(
    source: PixelSource, ranks: Sequence[Sequence[int]], run: Run, brightest: float
) -> list[dict[int, float]]:
    """Return the values of these ranks (from 0, ascending) for each channel."""
    dtype = np.dtype(source.image.dtype)
    blocks = [ChannelBlock(k, rect) for rect in blocks_of(source.image) for k in range(source.image.shape[0])]
    # for each channel and rank: the upper bits found so far, and the rank among pixels with these bits
    found = [{rank: (np.uint64(0), rank) for rank in wanted} for wanted in ranks]
    prefixes: dict[int, NDArray[np.uint64]] | None = None
    for shift in range(max(8 * dtype.itemsize, _DIGIT) - _DIGIT, -1, -_DIGIT):
        totals = _add_up(run(DigitCounts(source, prefixes, shift, brightest), blocks), source.image.shape[0])
        found = [
            {rank: _next_digit(total, *known) for rank, known in ranked.items()}
            for total, ranked in zip(totals, found, strict=True)
        ]
        prefixes = {k: np.unique([bits for bits, _ in ranked.values()]) for k, ranked in enumerate(found)}
    return [{rank: _value(bits, dtype) for rank, (bits, _) in ranked.items()} for ranked in found]


def _add_up(parts: Iterable[Counts], n_channels: int) -> list[dict[int, NDArray[np.int64]]]:
    """Return the counts of the next 16 bits, for each channel and each prefix."""
    totals: list[dict[int, NDArray[np.int64]]] = [{} for _ in range(n_channels)]
    for part in parts:
        total = totals[int(part.channel[0])]
        prefixes, digits = part.keys >> np.uint64(_DIGIT), part.keys & np.uint64(2**_DIGIT - 1)
        for prefix in np.unique(prefixes):
            here = prefixes == prefix
            total.setdefault(int(prefix), np.zeros(2**_DIGIT, np.int64))[digits[here]] += part.counts[here]
    return totals


def _next_digit(total: Mapping[int, NDArray[np.int64]], prefix: np.uint64, rank: int) -> tuple[np.uint64, int]:
    """Return the prefix of a rank's value, 16 bits longer, and the rank among pixels that begin with it."""
    ends = np.cumsum(total[int(prefix)])
    digit = int(np.searchsorted(ends, rank, side="right"))
    return (prefix << np.uint64(_DIGIT)) | np.uint64(digit), rank - (int(ends[digit - 1]) if digit else 0)


def _bits(pixels: NDArray[Any]) -> NDArray[Any]:
    """Return the bits of numbers that are not negative, as unsigned integers of at least 16 bits."""
    if pixels.dtype.itemsize == 1:
        return pixels.astype(np.uint16)
    # turns -0.0 into 0.0, which has other bits
    pixels = pixels + pixels.dtype.type(0) if pixels.dtype.kind == "f" else pixels
    return pixels.view(f"u{pixels.dtype.itemsize}")


def _value(bits: np.uint64, dtype: np.dtype[Any]) -> float:
    if dtype.itemsize == 1:
        return float(bits)
    return float(np.array([bits]).astype(f"u{dtype.itemsize}").view(dtype)[0])


def _histogram(digits: NDArray[Any]) -> tuple[NDArray[np.uint64], NDArray[np.int64]]:
    counts = np.bincount(digits.astype(np.uint16), minlength=0)
    keys = np.flatnonzero(counts)
    return keys.astype(np.uint64), counts[keys].astype(np.int64)
