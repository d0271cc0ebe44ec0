"""Cut and encode the single-cell images of a batch. This runs in the workers."""

from __future__ import annotations

import time
from dataclasses import replace
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from cellstamp.cells.crop_settings import CropSettings
from cellstamp.cells.finished_batch import FinishedBatch
from cellstamp.cells.kernels.crops import cut_stamps, new_scratch
from cellstamp.cells.plan import Batch
from cellstamp.checksums import checksum
from cellstamp.compiling.cache_folders import Types
from cellstamp.encoding import StampEncoder
from cellstamp.source.read.arrays import PixelSource
from cellstamp.source.read.tiles import Block, TileReader

if TYPE_CHECKING:
    from cellstamp.cells.measuring import CellMeasurer
    from cellstamp.config_rules import StampType
    from cellstamp.features.choice import FeatureChoice

_STACK_BYTES = 2**22
"""Bytes of uncompressed single-cell images per kernel call: enough that a call costs little."""


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
        self._largest_ids = _largest_ids(source)
        self._planes = _planes(source)
        self._reader = TileReader(source, reach=recipe.image_size, brightest=recipe.brightest)
        self._encoder = StampEncoder(recipe.compression, recipe.planes_per_chunk)
        self._scratch = new_scratch(recipe.image_size)
        self._stack, self._boxes = _room_for_stamps(source, recipe)
        self._on_edge = np.zeros(len(self._stack), np.bool_)
        self._measurer = None if features is None else self._new_measurer(source, features)

    def _new_measurer(self, source: PixelSource, features: FeatureChoice) -> CellMeasurer:
        # this import loads compiled code, which only runs that measure should pay for
        from cellstamp.cells.measuring import CellMeasurer

        def without_wrapped(block: Block, ids: NDArray[np.uint64]) -> Block:
            return _told_apart(block, ids, self._largest_ids)

        return CellMeasurer(source, self._planes, self._recipe.image_size, features, without_wrapped)

    def names_of_functions(self, batch: Batch) -> tuple[tuple[str, ...], ...]:
        """Return the names that each function of a user returns, see `CellMeasurer.names_of_functions`."""
        return () if self._measurer is None else self._measurer.names_of_functions(self._read(batch), batch)

    def _read(self, batch: Batch) -> Block:
        return _told_apart(self._reader.read(batch.tile.area, batch.tile.region), batch.ids, self._largest_ids)

    def cut(self, batch: Batch) -> FinishedBatch:
        """Read, cut and encode a batch; the payload of the result is valid until the next call."""
        started = time.perf_counter()
        block = self._read(batch)
        read = time.perf_counter()
        payload = self._room_for(len(batch))
        sizes, end, n_empty, on_edge, of_masks = [], 0, np.zeros(self._planes.size, np.int64), [], []
        for start in range(0, len(batch), len(self._stack)):
            some = batch[start : start + len(self._stack)]
            self._cut(block, some)
            boxes = self._boxes[: len(some)]
            sizes.append(self._encoder.encode(self._stack[: len(some)], boxes, payload[end:]))
            end += int(sizes[-1].sum())
            n_empty += (boxes[:, : n_empty.size, 1] == 0).sum(axis=0)
            on_edge.append(some.rows[self._on_edge[: len(some)]])
            if self._measurer is not None:
                of_masks.append(boxes[:, : n_empty.size].copy())
        features = None
        if self._measurer is not None:  # the complete batch: a call takes as long as some cells
            features = self._measurer.measure(block, batch, np.concatenate(of_masks)).features
        stored = payload[:end]
        images = batch.rows, np.concatenate(sizes), stored, checksum(stored), n_empty, np.concatenate(on_edge)
        return FinishedBatch(*images, read - started, time.perf_counter() - read, features=features)

    def measure(self, batch: Batch) -> FinishedBatch:
        """Read and measure a batch, without cutting single-cell images."""
        assert self._measurer is not None  # noqa: S101 - tasks that only measure have features
        started = time.perf_counter()
        block = self._read(batch)
        read = time.perf_counter()
        found = self._measurer.measure(block, batch)
        seconds = read - started, time.perf_counter() - read
        nothing, no_chunks = self._payload[:0], np.empty((len(batch), 0), np.int64)
        n_empty, on_edge = found.is_empty.sum(axis=0), batch.rows[found.is_cut]
        images = batch.rows, no_chunks, nothing, checksum(nothing), n_empty, on_edge
        return FinishedBatch(*images, *seconds, features=found.features)

    def _cut(self, block: Block, cells: Batch) -> None:
        ids, rect = cells.ids.astype(block.labels.dtype), block.rect
        tops, lefts = cells.tops.astype(np.int64) - rect.top, cells.lefts.astype(np.int64) - rect.left
        outlines = (self._planes, np.array([rect.top, rect.left]), cells.outlines.outlines().arrays)
        results = self._stack, self._boxes, self._on_edge
        cut_stamps(block.labels, block.image, ids, tops, lefts, outlines, self._how, *results, self._scratch)

    def _room_for(self, n_cells: int) -> NDArray[np.uint8]:
        n_bytes = self._encoder.room(n_cells, self._stack.shape[1], self._recipe.plane_bytes)
        if self._payload.size < n_bytes:
            self._payload = np.empty(n_bytes, np.uint8)
        return self._payload


def _largest_ids(source: PixelSource) -> tuple[int, ...]:
    """Return the largest id of each mask in a block's labels; in a signed mask, larger values are negative."""
    held = source.label_dtype
    signed = (np.dtype(mask.dtype).kind == "i" for mask in source.labels)
    return tuple(
        int(np.iinfo(mask.dtype if is_signed else held).max)
        for mask, is_signed in zip(source.labels, signed, strict=True)
    )


def _told_apart(block: Block, ids: NDArray[np.uint64], largest: tuple[int, ...]) -> Block:
    """Return a block in which too large ids cannot match labels that wrap around to the same bits.

    Only given centres can name such ids, so the usual block is returned unchanged.
    """
    if not ids.size or not largest or int(ids.max()) <= min(largest):
        return block
    labels = block.labels.astype(np.uint64)
    for plane, limit in zip(labels, largest, strict=True):
        plane[plane > limit] = 0
    return replace(block, labels=labels)


def _planes(source: PixelSource) -> NDArray[np.int64]:
    """Return where each mask is, for the kernels: number k of the labels, or -1 - k: number k of the outlines."""
    is_labels = np.array([mask in source.labels for mask in source.masks])
    return np.where(is_labels, np.cumsum(is_labels) - 1, -np.cumsum(~is_labels))


def _levels(dtype: StampType) -> float:
    """Return the stored value of 1."""
    return float(np.iinfo(dtype).max) if dtype.startswith("uint") else 1.0


def _room_for_stamps(source: PixelSource, recipe: CropSettings) -> tuple[NDArray[Any], NDArray[np.int64]]:
    """Allocate planes, all zero, and their boxes, all empty."""
    n_planes, size = source.n_planes, recipe.image_size
    n_cells = max(1, _STACK_BYTES // (n_planes * recipe.plane_bytes))
    stamps = np.zeros((n_cells, n_planes, size, size), Types(stamps=recipe.dtype).in_memory)
    return stamps, np.zeros((n_cells, n_planes, 4), np.int64)
