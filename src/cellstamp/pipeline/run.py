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
from cellstamp.cells.plan import (
    Batch,
    cells_per_batch,
    draw_cells,
    inside_image,
    plan_batches,
    tile_shape,
    window_corners,
)
from cellstamp.cells.stamps import Recipe, Stamps, StampTask
from cellstamp.config import ExtractionConfig
from cellstamp.engines.base import Engine
from cellstamp.errors import ConfigError
from cellstamp.h5sc.layout import Layout
from cellstamp.h5sc.writeback import sync
from cellstamp.pipeline.room import Room
from cellstamp.pipeline.scaling import Pairs, Scaling
from cellstamp.report import PeakMemory, Progress
from cellstamp.source.extents import Run, find_extents
from cellstamp.source.reader import PixelSource
from cellstamp.source.selection import ChosenCells
from cellstamp.source.values import Centers

FLUSH_SECONDS = 5.0
"""What is written reaches the disk about so often, unless ``flush_every`` says otherwise."""


@dataclass(frozen=True)
class Selection:
    """Which cells are extracted, and what becomes of the others.

    Attributes
    ----------
    n_in_mask
        How many cells the mask has.
    n_not_chosen
        How many of them the configuration leaves out.
    removed
        uint64: ids of chosen ones that are too near the border.
    cells
        Those to extract, in the order of the file; of a preview, those that were drawn.
    """

    n_in_mask: int
    n_not_chosen: int
    removed: NDArray[np.uint64]
    cells: Centers

    def counts(self) -> dict[str, int]:
        """What becomes of the cells in the mask, in numbers that add up."""
        n_kept = self.n_in_mask - self.n_not_chosen - self.removed.size
        return {
            "cells_in_mask": self.n_in_mask,
            "cells_not_chosen": self.n_not_chosen,
            "cells_removed_at_border": self.removed.size,
            "cells_not_drawn": n_kept - len(self.cells),
            "cells_written": len(self.cells),
        }


@dataclass(frozen=True)
class Job:
    """What is to be extracted, and how.

    Attributes
    ----------
    selection
        Which cells.
    scaling
        How pixels become values from 0 to 1.
    folder
        Where the results go.
    """

    config: ExtractionConfig
    source: PixelSource
    selection: Selection
    scaling: Scaling
    folder: Path

    @property
    def cells(self) -> Centers:
        """The cells to extract, in the order of the file."""
        return self.selection.cells

    @property
    def recipe(self) -> Recipe:
        """How stamps are made."""
        config, scaling = self.config, self.scaling
        return Recipe(
            image_size=config.image_size,
            limits=scaling.limits,
            per_cell=scaling.per_cell,
            brightest=scaling.brightest,
            apply_masks=config.apply_masks,
            dtype=config.dtype,
            compression=config.compression,
        )

    def batches(self, budget: int) -> list[Batch]:
        """Divide the cells into batches that share chunks, each worker's pixels and stamps a part of the budget."""
        config, source = self.config, self.source
        chunks = [(array.chunks[-2], array.chunks[-1]) for array in (source.image, *source.masks)]
        limit = max(budget // (4 * config.threads), 1)
        return plan_batches(
            self.cells,
            config.image_size,
            source.shape,
            tile=tile_shape(source.shape, chunks, bytes_per_pixel=source.bytes_per_pixel, limit=limit),
            chunk=(max(rows for rows, _ in chunks), max(columns for _, columns in chunks)),
            max_batch_size=cells_per_batch(config.max_batch_size, source.n_planes * self.recipe.plane_bytes),
            margin=config.image_size // 2 if config.border == "pad" else 0,
        )

    def settings(self) -> dict[str, Any]:
        """How the stamps are made, as the file says it."""
        config, scaling = self.config, self.scaling
        is_image = config.normalize_output and config.normalization_scope == "image"
        return {
            "image_size": config.image_size,
            "normalize_output": config.normalize_output,
            "normalization_range": _in_short(scaling.quantiles),
            "normalization_scope": config.normalization_scope if config.normalize_output else "None",
            "normalization_limits": _in_short(scaling.limits if is_image else None),
            "apply_masks": config.apply_masks,
            "border": config.border,
            "dtype": config.dtype,
            "compression": str(config.compression),
        }

    def made_from(self) -> dict[str, Any]:
        """All that decides what is in the file, as JSON has it: two runs with the same make the same file."""
        source = self.source
        cells = hashlib.sha256(self.cells.ids.tobytes() + self.cells.xy.tobytes()).hexdigest()
        return {
            "cellstamp": __version__,
            **self.settings(),
            "channels": list(source.channel_names),
            "cells": f"{len(self.cells)}, digest {cells[:16]}",
            **{
                array.name: f"{list(array.shape)} {array.dtype}, digest {array.signature()[:16]}"
                for array in (source.image, *source.masks)
            },
        }

    def description(self, made_from: dict[str, Any], n_empty: NDArray[np.int64], n_exceeding: int) -> dict[str, Any]:
        """What the file says of itself (``uns/cellstamp``)."""
        text = json.dumps(made_from)
        return {
            "version": __version__,
            "made_from": text,
            "fingerprint": hashlib.sha256(text.encode()).hexdigest(),
            **self.selection.counts(),
            "cells_empty_in_main_mask": int(n_empty[0]),
            "cells_empty_in_cell_mask": int(n_empty[-1]),
            "cells_exceeding_crop": n_exceeding,
            "settings": self.settings(),
        }

    def task(self) -> StampTask:
        """What workers do with a batch."""
        return StampTask(self.source, self.recipe)

    def layout(self) -> Layout:
        """What the file will hold."""
        return Layout(
            cell_ids=self.cells.ids,
            centers=self.cells.xy,
            mask_names=self.source.mask_names,
            channel_names=self.source.channel_names,
            image_size=self.config.image_size,
            normalization_ranges=self.scaling.quantiles,
            dtype=self.config.dtype,
            compression=self.config.compression,
        )


def _in_short(pairs: Pairs | None) -> Any:
    """A pair for each channel as JSON has it; one pair where all are the same."""
    if pairs is None:
        return "None"
    return list(pairs[0]) if len(set(pairs)) == 1 else [list(pair) for pair in pairs]


def check_crop_fits(config: ExtractionConfig, source: PixelSource) -> None:
    """Refuse crops larger than the image, where all of a crop has to be inside.

    Raises
    ------
    ConfigError
        If ``image_size`` is larger than the image's shorter side.
    """
    height, width = source.shape
    if config.border == "drop" and config.image_size > min(height, width):
        message = (
            f"image_size = {config.image_size}: must not be larger than the image, which is {height} x {width} pixels "
            f"(y, x): '{source.image.name}' in {source.image.store}; or set border to 'pad'"
        )
        raise ConfigError(message)


def select_cells(
    centers: Centers,
    source: PixelSource,
    config: ExtractionConfig,
    *,
    chosen: ChosenCells | None = None,
    partial: bool,
    n_cells: int | None,
    seed: int,
) -> Selection:
    """Divide cells into those to extract and all others.

    Parameters
    ----------
    centers
        All cells of the mask.
    chosen
        Those that the configuration chooses; None: all of them.
    partial, n_cells, seed
        Whether only some are drawn, how many, and the seed of that draw.

    Raises
    ------
    ConfigError
        If cells were chosen that there are not, or more are to be drawn than can be extracted.
    """
    wanted = centers if chosen is None else chosen.among(centers, source.main_mask.name)
    if config.border == "pad":
        inside = np.ones(len(wanted), np.bool_)
    else:
        inside = inside_image(wanted, config.image_size, source.shape)
    kept = wanted[inside]
    if partial and len(kept):
        kept = draw_cells(kept, n_cells, seed)
    return Selection(len(centers), len(centers) - len(wanted), wanted.ids[~inside], kept)


@dataclass(frozen=True)
class Exceeding:
    """Cells that reach out of their crops.

    Attributes
    ----------
    rows
        int64: where they stand in the file.
    largest
        Height and width in pixels of the largest, or (0, 0); where it is larger than three crops, at least that.
    """

    rows: NDArray[np.int64]
    largest: tuple[int, int]


def find_exceeding(job: Job, on_edge: NDArray[np.int64], run: Run) -> Exceeding:
    """Look around cells that reach the edge of their window, how far they go on.

    Parameters
    ----------
    on_edge
        int64: their rows, ascending.
    run
        How to apply a callable to every block of a mask.
    """
    if not on_edge.size:
        return Exceeding(on_edge, (0, 0))
    size, cells = job.config.image_size, job.cells[on_edge]
    left, top = window_corners(cells, size).T
    around = np.stack([top - size, top + 2 * size, left - size, left + 2 * size], axis=1)
    first_row, last_row, first_column, last_column = find_extents(job.source.masks[-1], cells.ids, around, run).boxes.T
    outside = (first_row < top) | (last_row >= top + size) | (first_column < left) | (last_column >= left + size)
    heights, widths = last_row - first_row + 1, last_column - first_column + 1
    largest = int(np.argmax(np.maximum(heights, widths) * outside))
    return Exceeding(on_edge[outside], (int(heights[largest]), int(widths[largest])) if outside.any() else (0, 0))


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
        self,
        rows: NDArray[np.int64],
        sizes: NDArray[np.int64],
        payload: NDArray[np.uint8],
        n_empty: NDArray[np.int64],
        on_edge: NDArray[np.int64],
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
            writer.write(stamps.rows, stamps.sizes, stamps.payload, stamps.n_empty, stamps.on_edge)
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
