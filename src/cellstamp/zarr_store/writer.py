"""Finish a zarr store of which workers write the shards: record them, and write the tables at the end."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from types import TracebackType
from typing import Any, Self

import numpy as np
from numpy.typing import NDArray

from cellstamp.errors import OutputError, writing
from cellstamp.h5sc.journal import Journal, ShardEntry, as_bytes, read_shards
from cellstamp.h5sc.layout import EXCEEDS, OURS
from cellstamp.h5sc.tables import consolidate, marks, tables_of, write_to_store
from cellstamp.h5sc.unfinished import JOURNAL, attempts_in
from cellstamp.h5sc.writeback import Writeback
from cellstamp.h5sc.written_cells import WrittenCells
from cellstamp.system import sync_folder
from cellstamp.zarr_store.destinations import LocalDestination, RemoteDestination
from cellstamp.zarr_store.layout import ShardedLayout, create_images
from cellstamp.zarr_store.shard_task import FinishedShard

_TABLES = "tables.zarr"
_WRITEBACK_BYTES = 2**26
"""Bytes of shards that are brought to the disk together in the background: each time, the journal is, too."""

Destination = LocalDestination | RemoteDestination


class ZarrWriter:
    """Record the shards that workers write, and complete their store. A context manager.

    Parameters
    ----------
    folder
        Folder of the journal. An existing one is continued.
    destination
        Place of the store.
    layout
        Cells, planes and pixel type.
    made_from
        Inputs and settings, for the journal.

    Attributes
    ----------
    written
        The cells of recorded shards.
    n_lost
        Number of cells of an interrupted run whose shards are missing or damaged.
    """

    def __init__(
        self, folder: Path, destination: Destination, layout: ShardedLayout, made_from: Mapping[str, Any]
    ) -> None:
        self.store = destination.store
        self.written = WrittenCells(layout)
        self._layout, self._destination, self._aside = layout, destination, folder / _TABLES
        self.n_lost = 0
        journal = folder / JOURNAL
        if journal.exists():
            destination.resume()
            self._recall(journal)
        else:
            destination.begin()
        self._journal = Journal(journal, dict(made_from), layout.planes_per_chunk)
        self._writeback = Writeback(self._commit)
        self._fresh_bytes = 0

    def _recall(self, journal: Path) -> None:
        """Note the shards that an interrupted run has written, if they are complete."""
        # a shard that was lost and written again has two entries
        entries = {entry.shard: entry for entry in read_shards(journal)}
        complete = self._destination.complete(entries, self._layout.rows_per_shard)
        for number in complete:
            self._note(entries[number])
        self.n_lost = sum(entry.n_cells for entry in entries.values()) - int(self.written.is_written.sum())

    def write(self, shard: FinishedShard) -> None:
        """Record a shard."""
        n_empty, on_edge, features = shard.n_empty.tolist(), shard.on_edge.tolist(), as_bytes(shard.features)
        entry = ShardEntry(shard.number, shard.n_cells, n_empty, on_edge, features)
        self._journal.add(entry)
        self._note(entry)
        self._fresh_bytes += shard.stored_bytes
        if self._fresh_bytes >= _WRITEBACK_BYTES:
            self._writeback.begin()
            self._fresh_bytes = 0

    def _note(self, entry: ShardEntry) -> None:
        first = entry.shard * self._layout.rows_per_shard
        self.written.note(slice(first, first + entry.n_cells), entry.on_edge, entry.n_empty)

    def flush(self) -> None:
        """Bring recorded shards to the disk, and their entries into the journal.

        Raises
        ------
        OutputError
            If this fails.
        """
        with writing(self.store):
            self._writeback.finish()

    def _commit(self) -> None:
        entries = self._journal.take()
        for entry in entries:
            if isinstance(entry, ShardEntry):
                self._destination.sync(entry.shard)
        self._journal.append(entries)

    def describe(self, about: Mapping[str, Any], exceeding: NDArray[np.int64]) -> None:
        """Write the tables; the metadata of the root are last, so that no reader takes the store for complete before.

        Parameters
        ----------
        about, exceeding
            As those of `cellstamp.h5sc.writer.StampWriter.describe`.
        """
        tables = tables_of(self._layout)
        tables["obs"][EXCEEDS] = marks(len(tables["obs"]), exceeding)
        tables["uns"][OURS] = dict(about)
        with writing(self._aside):
            self._write(tables)
        with writing(self.store):
            self._destination.take(self._aside)

    def _write(self, tables: Mapping[str, Any]) -> None:
        """Write the tables, and all metadata, beside the store."""
        write_to_store(self._aside, tables)
        create_images(self._aside, self._layout)
        consolidate(self._aside)

    def __enter__(self) -> Self:
        """Return the writer."""
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        """Bring recorded shards to the disk, also after an error: the next run continues the store."""
        try:
            self.flush()
        except OutputError:
            if kind is None:  # an earlier error is raised instead of this one
                raise
        finally:
            self._writeback.stop()
            self._journal.close(file_is_closed=True)


@contextmanager
def open_store(
    work: Path,
    layout: ShardedLayout,
    about: Mapping[str, Any],
    place: Callable[[Path], Destination],
    log: Callable[[str], None],
) -> Iterator[tuple[Path, ZarrWriter]]:
    """Open a store to write, with all shards that an interrupted run has finished.

    Parameters
    ----------
    work
        Folder of unfinished results.
    layout, about
        Layout of the store, and its inputs and settings.
    place
        Returns the place of the store for a numbered folder in ``work``.
    log
        Called with a line about finished cells that could not be read back.

    Yields
    ------
    Path, ZarrWriter
        Numbered folder with the journal, and the writer of the store.
    """
    folder = next(iter(attempts_in(work)), work / "1")
    folder.mkdir(exist_ok=True)
    with ZarrWriter(folder, place(folder), layout, about) as writer:
        for each in (folder, work, work.parent):
            sync_folder(each)
        if writer.n_lost:
            log(f"Could not read {writer.n_lost} finished cells from {folder}: extracting them again")
        yield folder, writer
