"""Cut and encode the single-cell images of a batch. This runs in the workers."""

from __future__ import annotations

import time
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from cellstamp.cells.batch_reader import BatchReader, planes_of
from cellstamp.cells.crop_settings import CropSettings
from cellstamp.cells.finished_batch import FinishedBatch
from cellstamp.cells.kernels.crops import cut_stamps, new_scratch
from cellstamp.cells.plan import Batch
from cellstamp.checksums import checksum
from cellstamp.compiling.cache_folders import Types
from cellstamp.encoding import StampEncoder
from cellstamp.source.read.arrays import PixelSource
from cellstamp.source.read.tiles import Block

if TYPE_CHECKING:
    from cellstamp.cells.measuring import CellMeasurer
    from cellstamp.config_rules import StampType
    from cellstamp.features.choice import FeatureChoice

_STACK_BYTES = 2**23
"""Bytes of uncompressed single-cell images per kernel call: enough that a call costs little. From 4 MiB on, numpy asks
Linux for large pages, which cutting and encoding are 9% faster with."""


class StampCutter:
    """Processes one batch after the other in the same memory.

    Parameters
    ----------
    source
        Image and masks.
    recipe
        How single-cell images are cut.
    features
        Features to measure; None: none.
    """

    def __init__(self, source: PixelSource, recipe: CropSettings, features: FeatureChoice | None = None) -> None:
        self._recipe = recipe
        self._how = (recipe.apply_masks, recipe.per_cell, np.array(recipe.limits, np.float64), _levels(recipe.dtype))
        self._payload = np.empty(0, np.uint8)
        self._planes = planes_of(source)
        self._reader = BatchReader(source, recipe)
        self._encoder = StampEncoder(recipe.compression, recipe.planes_per_chunk)
        self._scratch = new_scratch(self._planes.size, recipe.image_size)
        self._stack, self._boxes = _room_for_stamps(source, recipe)
        self._on_edge = np.zeros(len(self._stack), np.bool_)
        self._measurer = None if features is None else _measurer_of(source, recipe, features, self._reader)

    def cut(self, batch: Batch) -> FinishedBatch:
        """Read, cut and encode a batch; the payload of the result is valid until the next call."""
        started = time.perf_counter()
        block = self._reader.read(batch)
        read = time.perf_counter()
        payload = self._room_for(len(batch))
        measuring = None if self._measurer is None else self._measurer.start(block, batch)
        sizes, end, n_empty, on_edge = [], 0, np.zeros(self._planes.size, np.int64), []
        for start in range(0, len(batch), len(self._stack)):
            own = slice(start, start + len(self._stack))
            some = batch[own]
            self._cut(block, some, None if measuring is None else measuring.of(own))
            boxes = self._boxes[: len(some)]
            sizes.append(self._encoder.encode(self._stack[: len(some)], boxes, payload[end:]))
            end += int(sizes[-1].sum())
            n_empty += (boxes[:, : n_empty.size, 1] == 0).sum(axis=0)
            on_edge.append(some.rows[self._on_edge[: len(some)]])
        features = None
        if self._measurer is not None and measuring is not None:
            features = self._measurer.finish(measuring, block, batch)
        stored = payload[:end]
        images = batch.rows, np.concatenate(sizes), stored, checksum(stored), n_empty, np.concatenate(on_edge)
        return FinishedBatch(*images, read - started, time.perf_counter() - read, features=features)

    def _cut(self, block: Block, cells: Batch, measuring: tuple[Any, ...] | None) -> None:
        ids, rect = cells.ids.astype(block.labels.dtype), block.rect
        tops, lefts = cells.tops.astype(np.int64) - rect.top, cells.lefts.astype(np.int64) - rect.left
        outlines = (self._planes, np.array([rect.top, rect.left]), cells.outlines.outlines().arrays)
        results = self._stack, self._boxes, self._on_edge
        cut_stamps(block.labels, block.image, ids, tops, lefts, outlines, self._how, *results, measuring, self._scratch)

    def _room_for(self, n_cells: int) -> NDArray[np.uint8]:
        n_bytes = self._encoder.room(n_cells, self._stack.shape[1], self._recipe.plane_bytes)
        if self._payload.size < n_bytes:
            self._payload = np.empty(n_bytes, np.uint8)
        return self._payload


def _measurer_of(
    source: PixelSource, recipe: CropSettings, features: FeatureChoice, reader: BatchReader
) -> CellMeasurer:
    # this import loads compiled code, which only runs that measure should pay for
    from cellstamp.cells.measuring import CellMeasurer

    return CellMeasurer(source, recipe.image_size, features, reader.told_apart)


def _levels(dtype: StampType) -> float:
    """Return the stored value of 1."""
    return float(np.iinfo(dtype).max) if dtype.startswith("uint") else 1.0


def _room_for_stamps(source: PixelSource, recipe: CropSettings) -> tuple[NDArray[Any], NDArray[np.int64]]:
    """Allocate planes, all zero, and their boxes, all empty."""
    n_planes, size = source.n_planes, recipe.image_size
    n_cells = max(1, _STACK_BYTES // (n_planes * recipe.plane_bytes))
    stamps = np.zeros((n_cells, n_planes, size, size), Types(stamps=recipe.dtype).in_memory)
    return stamps, np.zeros((n_cells, n_planes, 4), np.int64)
