"""The stages of an extraction, each a function of values."""

from __future__ import annotations

import gc
import hashlib
import json
import os
import time
from collections.abc import Callable, Sequence
from contextlib import closing
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Protocol

import numpy as np
from numpy.typing import NDArray

from cellstamp import __version__
from cellstamp.cells.plan import Batch, cells_per_batch, draw_cells, inside_image, plan_batches, tile_shape
from cellstamp.cells.stamps import Recipe, Stamps, StampTask
from cellstamp.config import ExtractionConfig
from cellstamp.engines.base import Engine
from cellstamp.errors import ConfigError
from cellstamp.h5sc.layout import Layout
from cellstamp.h5sc.writeback import sync
from cellstamp.pipeline.room import Room
from cellstamp.report import PeakMemory, Progress
from cellstamp.source.reader import PixelSource
from cellstamp.source.values import Centers

FLUSH_SECONDS = 5.0
"""What is written reaches the disk about so often, unless ``flush_every`` says otherwise."""


@dataclass(frozen=True)
class Job:
    """What is to be extracted, and how.

    Attributes
    ----------
    n_in_mask
        How many cells the mask has.
    cells
        Those to extract, in the order of the file.
    removed
        uint64: ids of cells too near the border.
    folder
        Where the results go.
    n_not_chosen
        How many of the mask's cells were not asked for.
    """

    config: ExtractionConfig
    source: PixelSource
    n_in_mask: int
    cells: Centers
    removed: NDArray[np.uint64]
    folder: Path
    n_not_chosen: int = 0

    @property
    def rescale(self) -> tuple[float, float] | None:
        """Quantiles to normalise to, or None."""
        return self.config.normalization_range if self.config.normalize_output else None

    def batches(self, budget: int) -> list[Batch]:
        """Divide the cells into batches that share chunks, each worker's pixels and stamps a part of the budget."""
        config, source = self.config, self.source
        chunks = [(array.chunks[-2], array.chunks[-1]) for array in (source.image, *source.masks)]
        n_planes = len(source.masks) + source.image.shape[0]
        limit = max(budget // (4 * config.threads), 1)
        return plan_batches(
            self.cells,
            config.image_size,
            source.shape,
            tile=tile_shape(source.shape, chunks, bytes_per_pixel=source.bytes_per_pixel, limit=limit),
            chunk=(max(rows for rows, _ in chunks), max(columns for _, columns in chunks)),
            max_batch_size=cells_per_batch(config.max_batch_size, 2 * n_planes * config.image_size**2),
        )

    def made_from(self) -> dict[str, Any]:
        """All that decides what is in the file, as JSON has it: two runs with the same make the same file."""
        config, source = self.config, self.source
        cells = hashlib.sha256(self.cells.ids.tobytes() + self.cells.xy.tobytes()).hexdigest()
        return {
            "cellstamp": __version__,
            "image_size": config.image_size,
            "normalize_output": config.normalize_output,
            "normalization_range": list(self.rescale or ()) or "None",
            "compression": str(config.compression),
            "channels": list(source.channel_names),
            "cells": f"{len(self.cells)}, digest {cells[:16]}",
            **{
                array.name: f"{list(array.shape)} {array.dtype}, digest {array.signature()[:16]}"
                for array in (source.image, *source.masks)
            },
        }

    def description(self, made_from: dict[str, Any], n_empty: NDArray[np.int64]) -> dict[str, Any]:
        """What the file says of itself (``uns/cellstamp``)."""
        text = json.dumps(made_from)
        return {
            "version": __version__,
            "made_from": text,
            "fingerprint": hashlib.sha256(text.encode()).hexdigest(),
            "cells_in_mask": self.n_in_mask,
            "cells_not_chosen": self.n_not_chosen,
            "cells_removed_at_border": self.removed.size,
            "cells_not_drawn": self.n_in_mask - self.n_not_chosen - self.removed.size - len(self.cells),
            "cells_written": len(self.cells),
            "cells_empty_in_main_mask": int(n_empty[0]),
            "cells_empty_in_cell_mask": int(n_empty[-1]),
        }

    def task(self) -> StampTask:
        """What workers do with a batch."""
        return StampTask(self.source, Recipe(self.config.image_size, self.rescale, self.config.compression))

    def layout(self) -> Layout:
        """What the file will hold."""
        return Layout(
            cell_ids=self.cells.ids,
            centers=self.cells.xy,
            mask_names=self.source.mask_names,
            channel_names=self.source.channel_names,
            image_size=self.config.image_size,
            normalization_range=self.rescale,
            compression=self.config.compression,
        )


def check_crop_fits(image_size: int, source: PixelSource) -> None:
    """Refuse crops larger than the image.

    Raises
    ------
    ConfigError
        If ``image_size`` is larger than the image's shorter side.
    """
    height, width = source.shape
    if image_size > min(height, width):
        message = (
            f"image_size = {image_size}: must not be larger than the image, which is {height} x {width} pixels (y, x): "
            f"'{source.image.name}' in {source.image.store}"
        )
        raise ConfigError(message)


def select_cells(
    centers: Centers, source: PixelSource, image_size: int, *, partial: bool, n_cells: int | None, seed: int
) -> tuple[Centers, NDArray[np.uint64]]:
    """Divide cells into those to extract and the ids of those too near the border."""
    inside = inside_image(centers, image_size, source.shape)
    kept = centers[inside]
    if partial and len(kept):
        kept = draw_cells(kept, n_cells, seed)
    return kept, centers.ids[~inside]


def without(batches: Sequence[Batch], is_written: NDArray[np.bool_]) -> list[Batch]:
    """What is left of batches when some cells are written already."""
    left = (batch[~is_written[batch.rows]] for batch in batches)
    return [batch for batch in left if len(batch)]


class Limit(Protocol):
    """How many batches may be in flight; learns from every result."""

    def __call__(self) -> int:
        """Return the limit as it is now."""
        ...

    def observe(self, *, pid: int, rss: int, parent_pid: int, parent_rss: int, batch_bytes: int) -> None:
        """Take in what one result showed."""
        ...

    def forget(self, pid: int) -> None:
        """Take in that a worker has ended."""
        ...


class Writer(Protocol):
    """Where finished stamps go."""

    def write(
        self, rows: NDArray[np.int64], sizes: NDArray[np.int64], payload: NDArray[np.uint8], n_empty: NDArray[np.int64]
    ) -> None:
        """Store the finished chunks of some cells."""
        ...

    def flush(self) -> None:
        """Bring everything written so far to the disk."""
        ...


@dataclass
class Tally:
    """What adds up over the batches of a run; seconds are those of all workers together."""

    n_batches: int = 0
    largest_batch: int = 0
    read_s: float = 0.0
    cut_s: float = 0.0
    write_s: float = 0.0
    memory: PeakMemory = field(default_factory=PeakMemory)

    def add(self, stamps: Stamps, write_s: float) -> None:
        """Take in one batch."""
        self.n_batches += 1
        self.largest_batch = max(self.largest_batch, stamps.rows.size)
        self.read_s += stamps.read_s
        self.cut_s += stamps.cut_s
        self.write_s += write_s


class Flushing:
    """Brings what was written to the disk every so often, and collects garbage then.

    Parameters
    ----------
    writer
        Where it was written.
    every
        Batches between two flushes; None: as many as may be in flight, or `FLUSH_SECONDS`, whichever comes first.
    limit
        How many may be in flight.
    """

    def __init__(self, writer: Writer, every: int | None, limit: Callable[[], int]) -> None:
        self._writer, self._every, self._limit = writer, every, limit
        self._n_batches, self._since = 0, time.monotonic()

    def wrote_batch(self) -> bool:
        """Take in that a batch has been written; return whether that was the time to flush."""
        self._n_batches += 1
        if not self._is_due():
            return False
        self._writer.flush()
        # what batches leave behind is young; to go through all that is imported takes longer than writing
        gc.collect(1)
        self._n_batches, self._since = 0, time.monotonic()
        return True

    def _is_due(self) -> bool:
        if self._every is not None:
            return self._n_batches >= self._every
        return self._n_batches >= self._limit() or time.monotonic() - self._since >= FLUSH_SECONDS


def run_batches(
    engine: Engine,
    task: Callable[[Batch], Stamps],
    batches: Sequence[Batch],
    writer: Writer,
    *,
    limit: Limit,
    flush_every: int | None,
    room: Room,
    progress: Progress,
) -> Tally:
    """Have batches made by the engine and written here, each as soon as it is done.

    Parameters
    ----------
    limit
        How many batches may be submitted and not yet written.
    flush_every
        See `Flushing`.
    room
        Looked at when the first wave is written, and at every flush.
    """
    tally, flushing = Tally(), Flushing(writer, flush_every, limit)
    with closing(engine.run(task, batches, limit)) as outcomes:
        for outcome in outcomes:
            stamps = outcome.value
            for pid in tally.memory.observe(outcome.pid, outcome.rss):
                limit.forget(pid)
            limit.observe(
                pid=outcome.pid,
                rss=outcome.rss,
                parent_pid=os.getpid(),
                parent_rss=tally.memory.own_rss,
                batch_bytes=stamps.nbytes,
            )
            started = time.perf_counter()
            writer.write(stamps.rows, stamps.sizes, stamps.payload, stamps.n_empty)
            room.wrote(stamps.rows.size, stamps.nbytes)
            if flushing.wrote_batch() or tally.n_batches == engine.n_workers:
                room.check()
            tally.add(stamps, time.perf_counter() - started)
            progress.advance(stamps.rows.size)
    return tally


def publish(files: Sequence[str], work: Path, folder: Path) -> None:
    """Give finished files their final names, in place of an earlier run's, once all of them are on the disk."""
    folder.mkdir(parents=True, exist_ok=True)
    for name in files:
        sync(work / name)
    for name in files:
        (work / name).replace(folder / name)
    sync(folder)
