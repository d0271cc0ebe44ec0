"""A batch of cells -> compressed stamps. This runs in the workers."""

from __future__ import annotations

import time
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import numpy as np
from numpy.typing import NDArray

from cellstamp.cells.kernels import cut_stamps, new_scratch
from cellstamp.cells.plan import Batch
from cellstamp.codecs import Compression, StampEncoder
from cellstamp.source.reader import PixelSource, TileReader

_STACK_BYTES = 2**23
"""Uncompressed stamps held at a time: so many that calling the kernels costs little. Only their boxes are touched."""


@dataclass(frozen=True)
class Recipe:
    """How stamps are made.

    Attributes
    ----------
    image_size
        Side of a stamp in pixels.
    rescale
        Lower and upper quantile to normalise to; None: divide by the largest value of the image's dtype.
    compression
        HDF5 filter.
    """

    image_size: int
    rescale: tuple[float, float] | None
    compression: Compression | None


@dataclass(frozen=True)
class Stamps:
    """Finished stamps of one batch.

    Attributes
    ----------
    rows
        int64 (n_cells,): where they stand in the result.
    sizes
        int64 (n_cells, n_planes): bytes of each plane in ``payload``; a plane of full size is not compressed.
    payload
        uint8: the planes, one after the other in C order of (cell, plane).
    n_empty
        Cells that have no pixel of the cell mask in their window.
    read_s, cut_s
        Seconds for reading pixels, and for cutting and encoding.
    """

    rows: NDArray[np.int64]
    sizes: NDArray[np.int64]
    payload: NDArray[np.uint8]
    n_empty: int
    read_s: float
    cut_s: float

    @property
    def nbytes(self) -> int:
        """Memory of the result."""
        return self.payload.nbytes + self.sizes.nbytes + self.rows.nbytes


class StampTask:
    """Callable from a batch to its stamps; picklable, what it works with is made in the process that uses it.

    The payload it returns is valid until the next call.
    """

    def __init__(self, source: PixelSource, recipe: Recipe) -> None:
        self._source = source
        self._recipe = recipe
        self._payload = np.empty(0, np.uint8)

    def __reduce__(self) -> tuple[Any, ...]:
        """Take along only what says what to do."""
        return type(self), (self._source, self._recipe)

    def __call__(self, batch: Batch) -> Stamps:
        """Read, cut and encode a batch."""
        started = time.perf_counter()
        block = self._reader.read(batch.tile.area, batch.tile.region)
        read = time.perf_counter()
        ids = batch.ids.astype(block.labels.dtype)
        tops, lefts = batch.tops - block.rect.top, batch.lefts - block.rect.left
        payload = self._room_for(len(batch))
        sizes, end, n_empty = [], 0, 0
        for start in range(0, len(batch), len(self._stack)):
            part = slice(start, start + len(self._stack))
            n_cells = self._cut(block.labels, block.image, ids[part], tops[part], lefts[part])
            sizes.append(self._encoder.encode(self._stack[:n_cells], self._boxes[:n_cells], payload[end:]))
            end += int(sizes[-1].sum())
            n_empty += int((self._boxes[:n_cells, -1, 1] == 0).sum())
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

    @cached_property
    def _reader(self) -> TileReader:
        return TileReader(self._source, reach=self._recipe.image_size)

    @cached_property
    def _encoder(self) -> StampEncoder:
        return StampEncoder(self._recipe.compression)

    @cached_property
    def _stack(self) -> NDArray[np.uint16]:
        size = self._recipe.image_size
        n_planes = len(self._source.masks) + self._source.image.shape[0]
        n_cells = max(1, _STACK_BYTES // (2 * n_planes * size * size))
        return np.zeros((n_cells, n_planes, size, size), np.uint16)

    @cached_property
    def _boxes(self) -> NDArray[np.int64]:
        return np.zeros((*self._stack.shape[:2], 4), np.int64)

    @cached_property
    def _scratch(self) -> tuple[Any, ...]:
        return new_scratch(self._recipe.image_size)
