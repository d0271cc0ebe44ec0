"""The pixels of tiles, read one after the other, each chunk once as far as possible."""

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
"""Strips kept of tiles that someone else reads: those of the three beside the first tile of a walk."""


@dataclass(frozen=True)
class Block:
    """The pixels of one tile with what its windows reach above and to the left.

    Attributes
    ----------
    rect
        The area.
    labels
        (n_masks, y, x), uint32 or uint64.
    image
        (n_channels, y, x).
    """

    rect: Rect
    labels: NDArray[Any]
    image: NDArray[Any]


class TileReader:
    """Reads tiles in turn, each chunk once as long as neighbouring tiles follow each other.

    Parameters
    ----------
    source
        What to read.
    reach
        Pixels that a window may reach above or to the left of its tile: strips so wide are kept from the tiles before.
    brightest
        The largest value that a pixel may have.
    """

    def __init__(self, source: PixelSource, reach: int, brightest: float = math.inf) -> None:
        self._source = source
        self._reach = reach
        self._brightest = brightest
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
            What its windows need: inside the tile, or up to ``reach`` above and to the left of it.
        """
        if self._block is not None and self._block.rect.holds(region):
            return self._block
        beside = self._keep_strips()
        self._drop_strips(area)
        # the old block's memory is about to be overwritten; should reading fail, it must not be handed out again
        self._block = None
        block = self._new_block(region)
        own = [*self._strips] if beside is None else [beside, *self._strips]
        elsewhere = False
        for part in _parts(area, region):
            if area.holds(part):
                self._load(block, part)
            elif (strip := _holding(part, own)) is not None:
                _copy(strip, block, part)
            else:
                self._fetch(block, part)
                elsewhere = True
        if not elsewhere:
            self._fetched.clear()
        for number, pixels in enumerate(block.image):
            self._source.check_pixels(number, pixels, region, brightest=self._brightest)
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
        """Let go of strips that a walk row by row does not come back to: those of a row above, and to the left."""
        useful = (
            strip
            for strip in self._strips
            if strip.rect.bottom > area.top
            or (strip.rect.bottom == area.top and strip.rect.right > area.left - self._reach)
        )
        self._strips = deque(useful, self._strips.maxlen)

    def _new_block(self, region: Rect) -> Block:
        """A block over memory that is used again and again."""
        pixels = region.shape[0] * region.shape[1]
        n_masks, n_channels = len(self._source.masks), self._source.image.shape[0]
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
        for mask, labels in zip(self._source.masks, block.labels, strict=True):
            mask.read_into(part, labels[rows, columns])
        self._source.image.read_into(part, block.image[:, rows, columns])

    def _fetch(self, block: Block, part: Rect) -> None:
        """Fill a part of a block that lies in a tile not read here: at the start of a walk.

        The chunks that hold it are decoded whole, so their lower and right strips are kept, for the tiles that follow.
        """
        strip = _holding(part, self._fetched)
        if strip is None:
            chunks = self._chunks_around(part)
            top, left = max(chunks.top, chunks.bottom - self._reach), max(chunks.left, chunks.right - self._reach)
            strips = (
                self._empty(Rect(top, chunks.bottom, chunks.left, chunks.right)),
                self._empty(Rect(chunks.top, chunks.bottom, left, chunks.right)),
            )
            strip = _holding(part, strips)
            if strip is None:
                self._load(block, part)
                return
            for number, mask in enumerate(self._source.masks):
                _deal_out(mask.read(chunks), chunks, [(each.rect, each.labels[number]) for each in strips])
            image = self._source.image
            for channels in image.channels():
                _deal_out(image.read(chunks, channels), chunks, [(each.rect, each.image[channels]) for each in strips])
            self._fetched.extend(strips)
        _copy(strip, block, part)

    def _chunks_around(self, part: Rect) -> Rect:
        """The chunks that hold a part, where image and masks have the same; else the part."""
        arrays = (self._source.image, *self._source.masks)
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
            np.empty((len(self._source.masks), *rect.shape), self._labels.dtype),
            np.empty((self._source.image.shape[0], *rect.shape), self._image.dtype),
        )


def _holding(part: Rect, strips: Iterable[Block]) -> Block | None:
    """The first strip that holds a part."""
    return next((strip for strip in strips if strip.rect.holds(part)), None)


def _copy(strip: Block, block: Block, part: Rect) -> None:
    """Copy a part from a strip that holds it."""
    (y, x), (rows, columns) = part.slices(strip.rect), part.slices(block.rect)
    block.labels[:, rows, columns] = strip.labels[:, y, x]
    block.image[:, rows, columns] = strip.image[:, y, x]


def _deal_out(pixels: NDArray[Any], rect: Rect, targets: Iterable[tuple[Rect, NDArray[Any]]]) -> None:
    """Copy parts of an area; it is gone before the next is read, so that there is never more than one in memory."""
    for part, target in targets:
        target[...] = pixels[..., *part.slices(rect)]


def _cut(block: Block, rect: Rect) -> Block:
    rows, columns = rect.slices(block.rect)
    return Block(rect, block.labels[:, rows, columns].copy(), block.image[:, rows, columns].copy())


def _parts(area: Rect, region: Rect) -> list[Rect]:
    """Divide a region where its tile begins: what lies above, to the left, at the corner, and in the tile itself."""
    rows = [(region.top, min(area.top, region.bottom)), (max(area.top, region.top), region.bottom)]
    columns = [(region.left, min(area.left, region.right)), (max(area.left, region.left), region.right)]
    return [
        Rect(top, bottom, left, right)
        for top, bottom in rows
        for left, right in columns
        if top < bottom and left < right
    ]
