"""Read the pixels of batches, for workers that cut or measure their cells."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
from numpy.typing import NDArray

from cellstamp.cells.crop_settings import CropSettings
from cellstamp.cells.plan import Batch
from cellstamp.source.read.arrays import PixelSource
from cellstamp.source.read.tiles import Block, TileReader


class BatchReader:
    """Reads the blocks of pixels of one batch after the other.

    Parameters
    ----------
    source
        Image and masks.
    recipe
        Size of the crops, and largest allowed values.
    """

    def __init__(self, source: PixelSource, recipe: CropSettings) -> None:
        self._largest_ids = _largest_ids(source)
        self._reader = TileReader(source, reach=recipe.image_size, brightest=recipe.brightest)

    def read(self, batch: Batch) -> Block:
        """Return a block with all crops of a batch, valid until the next call."""
        return self.told_apart(self._reader.read(batch.tile.area, batch.tile.region), batch.ids)

    def told_apart(self, block: Block, ids: NDArray[np.uint64]) -> Block:
        """Return a block in which too large ids cannot match labels that wrap around to the same bits.

        Only given centres can name such ids, so the usual block is returned unchanged.
        """
        largest = self._largest_ids
        if not ids.size or not largest or int(ids.max()) <= min(largest):
            return block
        labels = block.labels.astype(np.uint64)
        for plane, limit in zip(labels, largest, strict=True):
            plane[plane > limit] = 0
        return replace(block, labels=labels)


def planes_of(source: PixelSource) -> NDArray[np.int64]:
    """Return where each mask is, for the kernels: number k of the labels, or -1 - k: number k of the outlines."""
    is_labels = np.array([mask in source.labels for mask in source.masks])
    return np.where(is_labels, np.cumsum(is_labels) - 1, -np.cumsum(~is_labels))


def _largest_ids(source: PixelSource) -> tuple[int, ...]:
    """Return the largest id of each mask in a block's labels; in a signed mask, larger values are negative."""
    held = source.label_dtype
    signed = (np.dtype(mask.dtype).kind == "i" for mask in source.labels)
    return tuple(
        int(np.iinfo(mask.dtype if is_signed else held).max)
        for mask, is_signed in zip(source.labels, signed, strict=True)
    )
