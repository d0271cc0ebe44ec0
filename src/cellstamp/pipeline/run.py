"""Run the stages of an extraction; each is a function of values."""

from __future__ import annotations

import gc
import os
import time
from collections.abc import Callable, Mapping, Sequence
from contextlib import closing
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Protocol

import numpy as np
from numpy.typing import NDArray

from cellstamp.cells.plan import Batch, ShardBatch, window_corners
from cellstamp.engines.base import Engine
from cellstamp.h5sc.written_cells import WrittenCells
from cellstamp.pipeline.crop_size import half_sizes
from cellstamp.pipeline.disk_space import DiskSpace
from cellstamp.pipeline.job import Job
from cellstamp.report import PeakMemory, Progress
from cellstamp.source.read.extents import Run, find_extents
from cellstamp.system import check_replaceable, replace_file, replace_folder, sync_file, sync_folder

FLUSH_SECONDS = 5.0
"""Seconds between two syncs to the disk, unless ``flush_every`` is set."""


@dataclass(frozen=True)
class Exceeding:
    """Cells that exceed their crops.

    Attributes
    ----------
    rows
        int64: their rows in the file.
    largest
        Height and width in pixels of the largest, or (0, 0). Cells larger than three crops are measured in part.
    fitting
        Side of the smallest crop that would hold all of them.
    """

    rows: NDArray[np.int64]
    largest: tuple[int, int]
    fitting: int


def find_exceeding(job: Job, on_edge: NDArray[np.int64], run: Run) -> Exceeding:
    """Measure how far cells that touch the edge of their crop exceed it.

    Parameters
    ----------
    on_edge
        int64: their rows, ascending.
    run
        Applies a callable to every block of a mask.
    """
    if not on_edge.size:
        return Exceeding(on_edge, (0, 0), 0)
    on_edge = on_edge[np.argsort(job.cells.ids[on_edge], kind="stable")]  # boxes are in the order of ids
    size, cells = job.config.image_size, job.cells[on_edge]
    left, top = window_corners(cells, size).T
    around = np.stack([top - size, top + 2 * size, left - size, left + 2 * size], axis=1)
    boxes = find_extents(job.source.masks[-1], cells.ids, around, run).boxes
    first_row, last_row, first_column, last_column = boxes.T
    halves = half_sizes(cells, boxes)
    outside = 2 * halves > size
    if not outside.any():
        return Exceeding(on_edge[outside], (0, 0), 0)
    heights, widths = last_row - first_row + 1, last_column - first_column + 1
    largest = int(np.argmax(np.maximum(heights, widths) * outside))
    return Exceeding(on_edge[outside], (int(heights[largest]), int(widths[largest])), 2 * int(halves.max()))


def without(batches: Sequence[Batch], is_written: NDArray[np.bool_]) -> list[Batch]:
    """Return batches without the cells that are already written."""
    if not is_written.any():
        return list(batches)  # not copies of all
    left = (batch[~is_written[batch.rows]] for batch in batches)
    return [batch for batch in left if len(batch)]


def without_shards(batches: Sequence[ShardBatch], is_written: NDArray[np.bool_]) -> list[ShardBatch]:
    """Return the shards that are not written yet."""
    return [batch for batch in batches if not is_written[batch.rows[0]]]


class Limit(Protocol):
    """Maximum number of batches in flight; adapts to the results."""

    def __call__(self) -> int:
        """Return the current limit."""
        ...

    def observe(self, *, pid: int, rss: int, parent_pid: int, parent_rss: int, batch_bytes: int) -> None:
        """Record the memory after one result."""
        ...

    def forget(self, pid: int) -> None:
        """Record that a worker has ended."""
        ...


class Finished(Protocol):
    """The result of a batch: images to be written, or what a worker has written."""

    n_cells: int
    nbytes: int
    stored_bytes: int
    read_s: float
    cut_s: float


class Writer(Protocol):
    """Destination of finished images."""

    @property
    def written(self) -> WrittenCells:
        """Return which cells are written."""
        ...

    def write(self, cells: Any, /) -> None:
        """Store the finished chunks of some cells."""
        ...

    def describe(self, about: Mapping[str, Any], exceeding: NDArray[np.int64]) -> None:
        """Write the parts that are known at the end."""
        ...

    def flush(self) -> None:
        """Sync everything written so far to the disk."""
        ...


@dataclass
class Tally:
    """Sums over the batches of a run; seconds are of all workers together."""

    n_batches: int = 0
    largest_batch: int = 0
    read_s: float = 0.0
    cut_s: float = 0.0
    write_s: float = 0.0
    memory: PeakMemory = field(default_factory=PeakMemory)

    def add(self, stamps: Finished, write_s: float) -> None:
        """Add one batch."""
        self.n_batches += 1
        self.largest_batch = max(self.largest_batch, stamps.n_cells)
        self.read_s += stamps.read_s
        self.cut_s += stamps.cut_s
        self.write_s += write_s


class Flushing:
    """Sync written data to the disk at intervals, and collect garbage.

    Parameters
    ----------
    writer
        The writer to flush.
    every
        Batches between two syncs; None: as many as may be in flight, or `FLUSH_SECONDS`, whichever comes first.
    limit
        Returns the maximum number of batches in flight.
    """

    def __init__(self, writer: Writer, every: int | None, limit: Callable[[], int]) -> None:
        self._writer, self._every, self._limit = writer, every, limit
        self._n_batches, self._since = 0, time.monotonic()

    def wrote_batch(self) -> bool:
        """Count a written batch; return whether data was synced."""
        self._n_batches += 1
        if not self._is_due():
            return False
        self._writer.flush()
        # garbage of batches is young; a full collection takes longer than writing
        gc.collect(1)
        self._n_batches, self._since = 0, time.monotonic()
        return True

    def _is_due(self) -> bool:
        if self._every is not None:
            return self._n_batches >= self._every
        return self._n_batches >= self._limit() or time.monotonic() - self._since >= FLUSH_SECONDS


def run_batches(
    engine: Engine,
    task: Callable[[Any], Finished],
    batches: Sequence[Batch | ShardBatch],
    writer: Writer,
    *,
    limit: Limit,
    flush_every: int | None,
    room: DiskSpace,
    progress: Progress,
) -> Tally:
    """Run batches on the engine, and write each when it is done.

    Parameters
    ----------
    limit
        Maximum number of batches in flight.
    flush_every
        See `Flushing`.
    room
        Checked after the first batch of each worker, and at every sync.
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
            writer.write(stamps)
            room.wrote(stamps.n_cells, stamps.stored_bytes)
            if flushing.wrote_batch() or tally.n_batches == engine.n_workers:
                room.check()
            tally.add(stamps, time.perf_counter() - started)
            progress.advance(stamps.n_cells)
    return tally


def publish(files: Sequence[str], work: Path, folder: Path) -> None:
    """Sync finished files to the disk, then rename them to their final names; existing ones are replaced.

    Files in folders are on the disk already.

    Raises
    ------
    OutputError
        If a program has one of the existing files open, on Windows. Then none is replaced.
    """
    folder.mkdir(parents=True, exist_ok=True)
    for name in files:
        if (work / name).is_file():
            sync_file(work / name)
        check_replaceable(folder / name)
    for name in files:
        replace = replace_folder if (work / name).is_dir() else replace_file
        replace(work / name, folder / name)
    sync_folder(folder)
