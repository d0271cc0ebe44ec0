"""Read the pixels of tiles in turn, and decode each chunk once if possible."""

from __future__ import annotations

import math
from collections import deque
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from cellstamp.source.read.arrays import PixelSource
from cellstamp.source.values import TILES_ABREAST, Rect

_FETCHED = 6
"""Number of strips kept from tiles of other workers: two for each of the three neighbours of a first tile."""


@dataclass(frozen=True)
class Block:
    """Pixels of a tile and its margin above and to the left, where its crops reach.

    Attributes
    ----------
    rect
        The area.
    labels
        (n_label_masks, y, x), uint32 or uint64.
    image
        (n_channels, y, x).
    """

    rect: Rect
    labels: NDArray[Any]
    image: NDArray[Any]


class TileReader:
    """Read tiles in turn, each chunk once while consecutive tiles are neighbours.

    Parameters
    ----------
    source
        Image and masks.
    reach
        Pixels that a crop may reach above or to the left of its tile: the width of the strips kept from earlier tiles.
    brightest
        Largest allowed value of a pixel of each channel; None: any.
    """

    def __init__(self, source: PixelSource, reach: int, brightest: tuple[float, ...] | None = None) -> None:
        self._source = source
        self._reach = reach
        self._brightest = brightest or (math.inf,) * source.image.shape[0]
        self._area: Rect | None = None
        self._block: Block | None = None
        self._strips: deque[Block] = deque(maxlen=TILES_ABREAST + 2)
        self._fetched: deque[Block] = deque(maxlen=_FETCHED)
        self._labels = np.empty(0, source.label_dtype)
        self._image = np.empty(0, np.dtype(source.image.dtype))

    def read(self, area: Rect, region: Rect) -> Block:
        """Return the pixels of ``region`` (or more), valid until the next call for a region not among them.

        Parameters
        ----------
        area
            The tile.
        region
            Area of its crops: inside the tile, or up to ``reach`` above and to the left of it.
        """
        if self._block is not None and self._block.rect.holds(region):
            return self._block
        beside = self._keep_strips()
        self._drop_strips(area)
        # the memory of the old block is overwritten: it must not be returned again, even if reading fails
        self._block = None
        block = self._new_block(region)
        own = [*self._strips] if beside is None else [beside, *self._strips]
        elsewhere = False
        for part in _split(area, region):
            if area.holds(part):
                self._load(block, part)
            elif (strip := _strip_with(part, own)) is not None:
                _copy(strip, block, part)
            else:
                self._fetch(block, part)
                elsewhere = True
        if not elsewhere:
            self._fetched.clear()
        for number, pixels in enumerate(block.image):
            self._source.check_pixels(number, pixels, region, brightest=self._brightest[number])
        self._area, self._block = area, block
        return block

    def _keep_strips(self) -> Block | None:
        """Copy the lower strip of the tile read last, and return its right strip."""
        block, area = self._block, self._area
        if block is None or area is None:
            return None
        rect = block.rect
        top, left = max(rect.top, area.bottom - self._reach), max(rect.left, area.right - self._reach)
        if top < rect.bottom:
            self._strips.append(_cut(block, Rect(top, rect.bottom, rect.left, rect.right)))
        return _cut(block, Rect(rect.top, rect.bottom, left, rect.right)) if left < rect.right else None

    def _drop_strips(self, area: Rect) -> None:
        """Drop strips that later tiles, row by row, do not need: those further above or to the left."""
        useful = (
            strip
            for strip in self._strips
            if strip.rect.bottom > area.top
            or (strip.rect.bottom == area.top and strip.rect.right > area.left - self._reach)
        )
        self._strips = deque(useful, self._strips.maxlen)

    def _new_block(self, region: Rect) -> Block:
        """Return a block in memory that is reused for every block."""
        pixels = region.shape[0] * region.shape[1]
        n_masks, n_channels = len(self._source.labels), self._source.image.shape[0]
        if self._labels.size < n_masks * pixels:
            self._labels = np.empty(n_masks * pixels, self._labels.dtype)
        if self._image.size < n_channels * pixels:
            self._image = np.empty(n_channels * pixels, self._image.dtype)
        return Block(
            region,
            self._labels[: n_masks * pixels].reshape(n_masks, *region.shape),
            self._image[: n_channels * pixels].reshape(n_channels, *region.shape),
        )

    def _load(self, block: Block, part: Rect) -> None:
        """Read a part of a block from the store."""
        rows, columns = part.slices(block.rect)
        for mask, labels in zip(self._source.labels, block.labels, strict=True):
            mask.read_into(part, labels[rows, columns])
        self._source.image.read_into(part, block.image[:, rows, columns])

    def _fetch(self, block: Block, part: Rect) -> None:
        """Fill a part of a block from a tile that this reader has not read, at the start of a span.

        Its chunks are decoded anyway, so their lower and right strips are kept for the next tiles.
        """
        strip = _strip_with(part, self._fetched)
        if strip is None:
            chunks = self._chunks_around(part)
            top, left = max(chunks.top, chunks.bottom - self._reach), max(chunks.left, chunks.right - self._reach)
            strips = (
                self._empty(Rect(top, chunks.bottom, chunks.left, chunks.right)),
                self._empty(Rect(chunks.top, chunks.bottom, left, chunks.right)),
            )
            strip = _strip_with(part, strips)
            if strip is None:
                self._load(block, part)
                return
            for number, mask in enumerate(self._source.labels):
                _copy_parts(mask.read(chunks), chunks, [(each.rect, each.labels[number]) for each in strips])
            image = self._source.image
            for channels in image.channels():
                _copy_parts(
                    image.read(chunks, channels), chunks, [(each.rect, each.image[channels]) for each in strips]
                )
            self._fetched.extend(strips)
        _copy(strip, block, part)

    def _chunks_around(self, part: Rect) -> Rect:
        """Return the area of the chunks around a part if image and masks have the same chunks, else the part."""
        arrays = self._source.arrays
        chunks = {(array.chunks[-2], array.chunks[-1]) for array in arrays}
        if len(chunks) > 1:
            return part
        ((rows, columns),) = chunks
        height, width = self._source.shape
        return Rect(
            part.top // rows * rows,
            -(-part.bottom // rows) * rows,
            part.left // columns * columns,
            -(-part.right // columns) * columns,
        ).clipped(height, width)

    def _empty(self, rect: Rect) -> Block:
        return Block(
            rect,
            np.empty((len(self._source.labels), *rect.shape), self._labels.dtype),
            np.empty((self._source.image.shape[0], *rect.shape), self._image.dtype),
        )


def _strip_with(part: Rect, strips: Iterable[Block]) -> Block | None:
    """Return the first strip that contains a part."""
    return next((strip for strip in strips if strip.rect.holds(part)), None)


def _copy(strip: Block, block: Block, part: Rect) -> None:
    """Copy a part from a strip that contains it."""
    (y, x), (rows, columns) = part.slices(strip.rect), part.slices(block.rect)
    block.labels[:, rows, columns] = strip.labels[:, y, x]
    block.image[:, rows, columns] = strip.image[:, y, x]


def _copy_parts(pixels: NDArray[Any], rect: Rect, targets: Iterable[tuple[Rect, NDArray[Any]]]) -> None:
    """Copy parts of an area. As a function, it frees the pixels before the next area is read."""
    for part, target in targets:
        target[...] = pixels[..., *part.slices(rect)]


def _cut(block: Block, rect: Rect) -> Block:
    rows, columns = rect.slices(block.rect)
    return Block(rect, block.labels[:, rows, columns].copy(), block.image[:, rows, columns].copy())


def _split(area: Rect, region: Rect) -> list[Rect]:
    """Divide a region into its parts above the tile, to its left, at the corner, and inside."""
    rows = [(region.top, min(area.top, region.bottom)), (max(area.top, region.top), region.bottom)]
    columns = [(region.left, min(area.left, region.right)), (max(area.left, region.left), region.right)]
    return [
        Rect(top, bottom, left, right)
        for top, bottom in rows
        for left, right in columns
        if top < bottom and left < right
    ]
