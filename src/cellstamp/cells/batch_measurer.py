"""Measure the cells of a batch without cutting single-cell images. This runs in the workers."""

from __future__ import annotations

import time

import numpy as np

from cellstamp.cells.batch_reader import BatchReader
from cellstamp.cells.crop_settings import CropSettings
from cellstamp.cells.finished_batch import FinishedBatch
from cellstamp.cells.measuring import CellMeasurer
from cellstamp.cells.plan import Batch
from cellstamp.checksums import checksum
from cellstamp.features.choice import FeatureChoice
from cellstamp.source.read.arrays import PixelSource


class BatchMeasurer:
    """Measures one batch after the other.

    Parameters
    ----------
    source
        Image and masks.
    recipe
        Size of the windows.
    features
        Features to measure.
    """

    def __init__(self, source: PixelSource, recipe: CropSettings, features: FeatureChoice) -> None:
        self._reader = BatchReader(source, recipe)
        self._measurer = CellMeasurer(source, recipe.image_size, features, self._reader.told_apart)

    def measure(self, batch: Batch) -> FinishedBatch:
        """Read and measure a batch."""
        started = time.perf_counter()
        block = self._reader.read(batch)
        read = time.perf_counter()
        features, measured = self._measurer.measure(block, batch)
        seconds = read - started, time.perf_counter() - read
        nothing, no_chunks = np.empty(0, np.uint8), np.empty((len(batch), 0), np.int64)
        n_empty, on_edge = measured.is_empty.sum(axis=0), batch.rows[measured.is_cut[:, -1]]
        images = batch.rows, no_chunks, nothing, checksum(nothing), n_empty, on_edge
        return FinishedBatch(*images, *seconds, features=features)

    def names_of_functions(self, batch: Batch) -> tuple[tuple[str, ...], ...]:
        """Return the names that each function of a user returns, see `CellMeasurer.names_of_functions`."""
        return self._measurer.names_of_functions(self._reader.read(batch), batch)
