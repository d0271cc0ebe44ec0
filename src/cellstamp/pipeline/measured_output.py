"""Record features beside the images while results arrive, and write their table at the end."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from cellstamp.cells.task import NamesTask
from cellstamp.config import ExtractionConfig
from cellstamp.engines.base import Engine
from cellstamp.features.choice import FeatureChoice
from cellstamp.features.declared import CELL, NUCLEUS, TEXTURE
from cellstamp.features.functions import find_function
from cellstamp.features.texture import check_installed
from cellstamp.h5sc.feature_rows import FeatureRows
from cellstamp.h5sc.feature_table import FeatureWriter, features_beside, features_name
from cellstamp.h5sc.journal import from_bytes, read_entries, read_shards
from cellstamp.h5sc.layout import FILE_NAME, REMOVED_NAME, RESULT_NAMES, Layout
from cellstamp.h5sc.unfinished import JOURNAL
from cellstamp.h5sc.written_cells import WrittenCells
from cellstamp.pipeline.disk_space import NO_FEATURES, FeatureSpace
from cellstamp.pipeline.job import Job
from cellstamp.pipeline.run import Writer
from cellstamp.source.read.arrays import PixelSource
from cellstamp.system import remove
from cellstamp.zarr_store.layout import ShardedLayout

_ROWS = "features.rows"


def choose_features(config: ExtractionConfig, source: PixelSource) -> FeatureChoice | None:
    """Return the features to measure; names of users' functions are still unknown. None: none.

    Raises
    ------
    ConfigError
        If a function cannot be imported, or scikit-image is missing.
    """
    if not config.features:
        return None
    if TEXTURE in config.features:
        check_installed()
    for path in config.feature_functions:
        find_function(path)
    return FeatureChoice(config.feature_groups, _masks(config, source), source.channel_names, config.feature_functions)


def _masks(config: ExtractionConfig, source: PixelSource) -> tuple[str, ...]:
    """Return what the masks are; a single mask is the nucleus if it is given or named so."""
    if len(source.masks) == 2:
        return NUCLEUS, CELL
    if config.nucleus_labels or config.nucleus_shapes:
        return (NUCLEUS,)
    named_cell = config.cytosol_labels or config.cytosol_shapes
    return (CELL,) if named_cell or NUCLEUS not in source.mask_names[0].removeprefix(_key(config)) else (NUCLEUS,)


def _key(config: ExtractionConfig) -> str:
    """Return the segmentation key, which may itself contain a word for a mask."""
    return "" if config.segmentation_mask else config.segmentation_key


def with_names(job: Job, engine: Engine, batches: Iterable[Any]) -> Job:
    """Return the job with the names that users' functions return for the first cells.

    Raises
    ------
    ConfigError
        If two features have the same name.
    WorkerError
        If a function fails.
    """
    if job.features is None:
        return job
    names: tuple[tuple[str, ...], ...] = ()
    if job.features.functions:
        piece = next(iter(batches)).pieces[0]
        task = NamesTask(job.source, job.recipe, job.features)
        for outcome in engine.run(task, [piece], lambda: 1):
            names = outcome.value.names
    named = replace(job, features=replace(job.features, names=names))
    _ = named.features and named.features.features  # raises if names are repeated
    return named


def space_of_features(job: Job, layout: Layout) -> FeatureSpace:
    """Return the disk space that the features of a job take."""
    return NO_FEATURES if job.features is None else FeatureSpace.of(layout, len(job.features.features))


class Recorder:
    """A writer of images that also records features.

    Parameters
    ----------
    writer
        Writes images.
    rows
        Gets the features.
    table
        Gets them at the end.
    tell_in_part
        Called with the number of cells that were measured in part, if there are any.
    """

    def __init__(
        self, writer: Writer, rows: FeatureRows, table: FeatureWriter, tell_in_part: Callable[[int], None]
    ) -> None:
        self._writer, self._rows, self._table, self._tell_in_part = writer, rows, table, tell_in_part

    @property
    def written(self) -> WrittenCells:
        """Return which cells are written."""
        return self._writer.written

    def write(self, cells: Any, /) -> None:
        """Store images and features of some cells."""
        self._rows.put(cells.rows, cells.features)
        self._writer.write(cells)

    def describe(self, about: Mapping[str, Any], exceeding: NDArray[np.int64]) -> None:
        """Write the parts that are known at the end. A store behind a URL uploads the table with the others."""
        n_in_part = self._table.finish(about, exceeding, self._rows)
        self._writer.describe(about, exceeding)
        if n_in_part:
            self._tell_in_part(n_in_part)

    def flush(self) -> None:
        """Sync everything written so far to the disk; features are in the journal."""
        self._writer.flush()


@contextmanager
def recording(
    job: Job, layout: Layout, writer: Writer, folder: Path, tell_in_part: Callable[[int], None]
) -> Iterator[Writer]:
    """Return a writer that also records features; without features, the writer itself.

    Parameters
    ----------
    layout
        Of the images.
    writer
        Writes images, and has recalled those of an interrupted run.
    folder
        Its folder, with the journal.
    tell_in_part
        See `Recorder`.
    """
    if job.features is None:
        yield writer
        return
    features = job.features.features
    table = FeatureWriter(folder / features_beside(job.result).name, layout, features)
    with FeatureRows(folder / _ROWS, layout.shape[0], 1 + len(features)) as rows:
        for numbers, values in _recorded(folder / JOURNAL, layout):
            rows.put(numbers, values)
        yield Recorder(writer, rows, table, tell_in_part)


def _recorded(journal: Path, layout: Layout) -> Iterator[tuple[Any, NDArray[np.float32]]]:
    """Yield rows and features in a journal."""
    if isinstance(layout, ShardedLayout):
        for shard in read_shards(journal):
            first = shard.shard * layout.rows_per_shard
            values = from_bytes(shard.features, shard.n_cells)
            if values is not None:
                yield range(first, first + shard.n_cells), values
        return
    for entry in read_entries(journal):
        values = from_bytes(entry.features, len(entry.rows))
        if values is not None:
            yield entry.rows, values


def published(job: Job) -> list[str]:
    """Return the names of the features to publish: none, or one."""
    is_remote = job.config.output_url is not None
    # without images, the features are the result
    return [] if job.features is None or is_remote or not job.config.images else [features_name(job.result.name)]


def remove_outdated(job: Job) -> None:
    """Remove features and lists of removed cells of an earlier result, if the new one doesn't replace them."""
    if job.features is None:
        remove(job.folder / features_name(job.result.name))
    # earlier versions wrote one list for all formats
    if [name for name in RESULT_NAMES if (job.folder / name).exists()] == [job.file_name] != [FILE_NAME]:
        remove(job.folder / REMOVED_NAME)
