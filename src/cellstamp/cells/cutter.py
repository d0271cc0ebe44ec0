"""Cuts and encodes the stamps of a batch. This runs in the workers."""

from __future__ import annotations

import time
from typing import Any

import numpy as np
from numpy.typing import NDArray

from cellstamp.cells.kernels import cut_stamps, new_scratch
from cellstamp.cells.plan import Batch
from cellstamp.cells.stamps import Recipe, Stamps
from cellstamp.codecs import StampEncoder
from cellstamp.source.reader import PixelSource, TileReader

_STACK_BYTES = 2**22
"""Uncompressed stamps held at a time: so many that calling the kernels costs little. Only their boxes are touched."""


class StampCutter:
    """Works on one batch after the other, with memory that is used again and again.

    Parameters
    ----------
    source
        Where pixels are.
    recipe
        How stamps are made.
    """

    def __init__(self, source: PixelSource, recipe: Recipe) -> None:
        self._recipe = recipe
        self._payload = np.empty(0, np.uint8)
        self._reader = TileReader(source, reach=recipe.image_size)
        self._encoder = StampEncoder(recipe.compression)
        self._scratch = new_scratch(recipe.image_size)
        self._stack, self._boxes = _room_for_stamps(source, recipe.image_size)

    def cut(self, batch: Batch) -> Stamps:
        """Read, cut and encode a batch; the payload of what is returned is valid until the next call."""
        started = time.perf_counter()
        block = self._reader.read(batch.tile.area, batch.tile.region)
        read = time.perf_counter()
        ids = batch.ids.astype(block.labels.dtype)
        tops, lefts = batch.tops - block.rect.top, batch.lefts - block.rect.left
        payload = self._room_for(len(batch))
        sizes, end, n_empty = [], 0, np.zeros(len(block.labels), np.int64)
        for start in range(0, len(batch), len(self._stack)):
            part = slice(start, start + len(self._stack))
            n_cells = self._cut(block.labels, block.image, ids[part], tops[part], lefts[part])
            sizes.append(self._encoder.encode(self._stack[:n_cells], self._boxes[:n_cells], payload[end:]))
            end += int(sizes[-1].sum())
            n_empty += (self._boxes[:n_cells, : n_empty.size, 1] == 0).sum(axis=0)
        done = time.perf_counter()
        return Stamps(batch.rows, np.concatenate(sizes), payload[:end], n_empty, read - started, done - read)

    def _cut(self, labels: NDArray[Any], image: NDArray[Any], ids: NDArray[Any], tops: Any, lefts: Any) -> int:
        rescale = np.array(self._recipe.rescale or ())
        divisor = float(np.iinfo(image.dtype).max)
        cut_stamps(labels, image, ids, tops, lefts, rescale, divisor, self._stack, self._boxes, self._scratch)
        return int(ids.size)

    def _room_for(self, n_cells: int) -> NDArray[np.uint8]:
        n_bytes = self._encoder.room(n_cells * self._stack.shape[1], self._recipe.image_size)
        if self._payload.size < n_bytes:
            self._payload = np.empty(n_bytes, np.uint8)
        return self._payload


def _room_for_stamps(source: PixelSource, size: int) -> tuple[NDArray[np.uint16], NDArray[np.int64]]:
    """Stamps, all zero, and their boxes, all empty."""
    n_planes = len(source.masks) + source.image.shape[0]
    n_cells = max(1, _STACK_BYTES // (2 * n_planes * size * size))
    return np.zeros((n_cells, n_planes, size, size), np.uint16), np.zeros((n_cells, n_planes, 4), np.int64)
