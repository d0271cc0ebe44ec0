"""Finish a zarr store of which workers write the shards: record them, and write the tables at the end."""

from __future__ import annotations

import json
import warnings
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from types import TracebackType
from typing import Any, Self

import anndata
import numpy as np
import pandas as pd
import zarr
from numpy.typing import NDArray

from cellstamp.errors import OutputError, writing
from cellstamp.h5sc.journal import Journal, ShardEntry, as_text, read_shards
from cellstamp.h5sc.layout import EXCEEDS, OURS, STORE_NAME
from cellstamp.h5sc.opening import ROOT
from cellstamp.h5sc.tables import tables_of
from cellstamp.h5sc.unfinished import JOURNAL, attempts_in
from cellstamp.system import remove_folder, sync_file, sync_folder
from cellstamp.zarr_store.layout import ShardedLayout, create_images
from cellstamp.zarr_store.shard_task import FinishedShard
from cellstamp.zarr_store.shards import read_index, remove_unfinished, shard_path

_TABLES = "tables.zarr"


class ZarrWriter:
    """Record the shards that workers write, and complete their store. A context manager.

    Parameters
    ----------
    folder
        Folder of the store and its journal. Existing ones are continued.
    layout
        Cells, planes and pixel type.
    made_from
        Inputs and settings, for the journal.

    Attributes
    ----------
    is_written, n_empty, on_edge
        As those of `cellstamp.h5sc.writer.StampWriter`.
    """

    def __init__(self, folder: Path, layout: ShardedLayout, made_from: Mapping[str, Any]) -> None:
        # workers of a cluster have other working folders
        self.store = folder.absolute() / STORE_NAME
        self.is_written = np.zeros(layout.shape[0], np.bool_)
        self.on_edge = np.zeros(layout.shape[0], np.bool_)
        self.n_empty = np.zeros(len(layout.mask_names), np.int64)
        self._layout = layout
        journal = folder / JOURNAL
        if self.store.exists():
            self._recall(journal)
        else:
            create_images(self.store, layout)
        self._journal = Journal(journal, dict(made_from), layout.planes_per_chunk)

    def _recall(self, journal: Path) -> None:
        """Note the shards that an interrupted run has written, if they are complete."""
        # a shard that was lost and written again has two entries
        for entry in {entry.shard: entry for entry in read_shards(journal)}.values():
            if read_index(shard_path(self.store, entry.shard), self._layout.rows_per_shard) is not None:
                self._note(entry)

    def write(self, shard: FinishedShard) -> None:
        """Record a shard."""
        n_empty, on_edge, features = shard.n_empty.tolist(), shard.on_edge.tolist(), as_text(shard.features)
        entry = ShardEntry(shard.number, shard.n_cells, n_empty, on_edge, features)
        self._journal.add(entry)
        self._note(entry)

    def _note(self, entry: ShardEntry) -> None:
        first = entry.shard * self._layout.rows_per_shard
        self.is_written[first : first + entry.n_cells] = True
        self.on_edge[np.array(entry.on_edge, np.int64)] = True
        self.n_empty += np.array(entry.n_empty, np.int64)

    def flush(self) -> None:
        """Bring recorded shards to the disk, and their entries into the journal.

        Raises
        ------
        OutputError
            If this fails.
        """
        with writing(self.store):
            entries = self._journal.take()
            for entry in entries:
                if isinstance(entry, ShardEntry):
                    sync_file(shard_path(self.store, entry.shard))
            self._journal.append(entries)

    def describe(self, about: Mapping[str, Any], exceeding: NDArray[np.int64]) -> None:
        """Write the tables; the metadata of the root are last, so that no reader takes the store for complete before.

        Parameters
        ----------
        about, exceeding
            As those of `cellstamp.h5sc.writer.StampWriter.describe`.
        """
        remove_unfinished(self.store)
        tables = tables_of(self._layout)
        tables["obs"].index = pd.Index(list(map(str, range(self.is_written.size))), dtype=object)
        exceeds = np.zeros(self.is_written.size, np.bool_)
        exceeds[exceeding] = True
        tables["obs"][EXCEEDS] = exceeds
        tables["uns"][OURS] = dict(about)
        with writing(self.store):
            self._write(tables)

    def _write(self, tables: Mapping[str, Any]) -> None:
        """Write the tables beside the store, and move them into it, the metadata of its root last."""
        aside = self.store.with_name(_TABLES)
        group = zarr.open_group(aside, mode="w", zarr_format=3)
        group.attrs.update({"encoding-type": "anndata", "encoding-version": "0.1.0"})
        with warnings.catch_warnings():
            # it announces shards for all arrays, which change no value
            warnings.filterwarnings("ignore", message="zarr v3 autosharding")
            for name, element in tables.items():
                anndata.io.write_elem(group, name, element)
        for file in aside.rglob("*"):
            if file.is_file():
                sync_file(file)
        for path in [
            *(aside / "obsm").iterdir(),
            *(path for path in aside.iterdir() if path.name not in (ROOT, "obsm")),
        ]:
            target = self.store / path.relative_to(aside)
            if target.is_dir():  # of a run that was interrupted here
                remove_folder(target)
            path.replace(target)
        root = json.loads((aside / ROOT).read_text(encoding="utf-8"))
        root["consolidated_metadata"] = {"kind": "inline", "must_understand": False, "metadata": _metadata(self.store)}
        (aside / ROOT).write_text(json.dumps(root), encoding="utf-8")
        sync_file(aside / ROOT)
        (aside / ROOT).replace(self.store / ROOT)
        sync_folder(self.store)

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
            self._journal.close(file_is_closed=True)


def _metadata(store: Path) -> dict[str, Any]:
    """Return the metadata of all elements by path, as zarr-python stores them in the root, for remote readers."""
    files = sorted(path for path in store.rglob(ROOT) if path.parent != store)
    return {path.parent.relative_to(store).as_posix(): json.loads(path.read_text(encoding="utf-8")) for path in files}


@contextmanager
def open_store(work: Path, layout: ShardedLayout, about: Mapping[str, Any]) -> Iterator[tuple[Path, ZarrWriter]]:
    """Open a store to write, with all shards that an interrupted run has finished.

    Parameters
    ----------
    work
        Folder of unfinished results.
    layout, about
        Layout of the store, and its inputs and settings.

    Yields
    ------
    Path, ZarrWriter
        Folder of the store, and its writer.
    """
    folder = next(iter(attempts_in(work)), work / "1")
    folder.mkdir(exist_ok=True)
    with ZarrWriter(folder, layout, about) as writer:
        for place in (folder, work, work.parent):
            sync_folder(place)
        yield folder, writer
