"""The stages of an extraction, each a function of values."""

from __future__ import annotations

import gc
import os
import time
from collections.abc import Callable, Iterable, Sequence
from contextlib import closing
from dataclasses import dataclass, field
from pathlib import Path
from typing import Protocol

import numpy as np
import psutil
from numpy.typing import NDArray

from cellstamp.cells.plan import Batch, cells_per_batch, draw_cells, inside_image, plan_batches, tile_shape
from cellstamp.cells.stamps import Recipe, Stamps, StampTask
from cellstamp.config import ExtractionConfig
from cellstamp.engines.base import Engine, SerialEngine
from cellstamp.engines.processes import ProcessEngine
from cellstamp.errors import ConfigError
from cellstamp.h5sc.layout import Layout
from cellstamp.report import PeakMemory, Progress
from cellstamp.source.centers import BlockSums, Sums, compute_centers
from cellstamp.source.reader import ArrayHandle, PixelSource
from cellstamp.source.values import Centers, Rect

FLUSH_SECONDS = 5.0
"""What is written reaches the disk about so often, unless ``flush_every`` says otherwise."""

_PARALLEL_PIXELS = 16 * 2**20
"""Masks of fewer pixels are summed up faster than workers start."""

_PRELOAD = ("cellstamp.cells.preload",)


def choose_engine(config: ExtractionConfig) -> Engine:
    """The engine that the configuration asks for; one worker needs no process of its own."""
    if config.engine == "serial" or config.threads == 1:
        return SerialEngine()
    return ProcessEngine(config.threads, preload=_PRELOAD)


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


def measure_centers(labels: ArrayHandle, engine: Engine, n_workers: int) -> Centers:
    """Compute the centres of a mask's cells, in the workers where that is worth starting them."""
    if labels.shape[0] * labels.shape[1] < _PARALLEL_PIXELS:
        return compute_centers(labels)

    def run(task: BlockSums, blocks: Sequence[Rect]) -> Iterable[Sums]:
        return (outcome.value for outcome in engine.run(task, blocks, lambda: 4 * n_workers))

    return compute_centers(labels, run)


@dataclass(frozen=True)
class Plan:
    """What will be extracted.

    Attributes
    ----------
    cells
        The cells, in the order of the file.
    removed
        uint64: ids of cells too near the border.
    batches
        All cells, in the order in which they are best read.
    """

    cells: Centers
    removed: NDArray[np.uint64]
    batches: list[Batch]


def select_cells(
    centers: Centers, source: PixelSource, image_size: int, *, partial: bool, n_cells: int | None, seed: int
) -> tuple[Centers, NDArray[np.uint64]]:
    """Divide cells into those to extract and the ids of those too near the border."""
    inside = inside_image(centers, image_size, source.shape)
    kept = centers[inside]
    if partial and len(kept):
        kept = draw_cells(kept, n_cells, seed)
    return kept, centers.ids[~inside]


def plan_reading(cells: Centers, source: PixelSource, config: ExtractionConfig, budget: int) -> list[Batch]:
    """Divide cells into batches that share chunks and fit into memory."""
    chunks = [(array.chunks[-2], array.chunks[-1]) for array in (source.image, *source.masks)]
    limit = max(budget // (4 * config.threads), 1)
    n_planes = len(source.masks) + source.image.shape[0]
    return plan_batches(
        cells,
        config.image_size,
        source.shape,
        tile=tile_shape(source.shape, chunks, bytes_per_pixel=source.bytes_per_pixel, limit=limit),
        chunk=(max(rows for rows, _ in chunks), max(columns for _, columns in chunks)),
        max_batch_size=cells_per_batch(config.max_batch_size, 2 * n_planes * config.image_size**2),
    )


def make_task(source: PixelSource, config: ExtractionConfig) -> StampTask:
    """What workers do with a batch."""
    rescale = config.normalization_range if config.normalize_output else None
    return StampTask(source, Recipe(config.image_size, rescale, config.compression))


def make_layout(cells: Centers, source: PixelSource, config: ExtractionConfig) -> Layout:
    """What the file will hold."""
    return Layout(
        cell_ids=cells.ids,
        centers=cells.xy,
        mask_names=source.mask_names,
        channel_names=source.channel_names,
        image_size=config.image_size,
        normalization_range=config.normalization_range if config.normalize_output else None,
        compression=config.compression,
    )


class Limit(Protocol):
    """How many batches may be in flight; learns from every result."""

    def __call__(self) -> int:
        """Return the limit as it is now."""
        ...

    def observe(self, *, pid: int, rss: int, parent_pid: int, parent_rss: int, batch_bytes: int) -> None:
        """Take in what one result showed."""
        ...


class Writer(Protocol):
    """Where finished stamps go."""

    def write(self, rows: NDArray[np.int64], sizes: NDArray[np.int64], payload: bytes) -> None:
        """Store the finished chunks of some cells."""
        ...

    def flush(self) -> None:
        """Bring everything written so far to the disk."""
        ...


@dataclass
class Tally:
    """What adds up over the batches of a run."""

    n_empty: int = 0
    read_s: float = 0.0
    cut_s: float = 0.0
    write_s: float = 0.0
    memory: PeakMemory = field(default_factory=PeakMemory)


def run_batches(
    engine: Engine,
    task: Callable[[Batch], Stamps],
    batches: Sequence[Batch],
    writer: Writer,
    *,
    limit: Limit,
    flush_every: int | None,
    progress: Progress,
) -> Tally:
    """Have batches made by the engine and written here, each as soon as it is done.

    Parameters
    ----------
    limit
        How many batches may be submitted and not yet written.
    flush_every
        Batches between two flushes; None: what ``limit`` says, or `FLUSH_SECONDS`, whichever is reached first.
    """
    tally, me = Tally(), psutil.Process()
    unflushed, flushed_at = 0, time.monotonic()
    with closing(engine.run(task, batches, limit)) as outcomes:  # type: ignore[type-var]
        for outcome in outcomes:
            stamps = outcome.value
            rss = me.memory_info().rss
            limit.observe(
                pid=outcome.pid, rss=outcome.rss, parent_pid=os.getpid(), parent_rss=rss, batch_bytes=stamps.nbytes
            )
            started = time.perf_counter()
            writer.write(stamps.rows, stamps.sizes, stamps.payload)
            unflushed += 1
            due = time.monotonic() - flushed_at > FLUSH_SECONDS or unflushed >= limit()
            if due if flush_every is None else unflushed >= flush_every:
                writer.flush()
                gc.collect()
                unflushed, flushed_at = 0, time.monotonic()
            _add(tally, stamps, time.perf_counter() - started)
            tally.memory.observe(outcome.pid, outcome.rss)
            progress.advance(stamps.rows.size)
    return tally


def _add(tally: Tally, stamps: Stamps, write_s: float) -> None:
    tally.n_empty += stamps.n_empty
    tally.read_s += stamps.read_s
    tally.cut_s += stamps.cut_s
    tally.write_s += write_s


def publish(files: Sequence[str], work: Path, folder: Path) -> None:
    """Give finished files their final names, replacing those of an earlier run one by one; remove the working folder."""
    folder.mkdir(parents=True, exist_ok=True)
    for name in files:
        (work / name).replace(folder / name)
    work.rmdir()
