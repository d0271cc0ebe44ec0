"""Writes an `.h5sc` file: its frame first, then finished chunks in any order."""

from __future__ import annotations

import errno
import os
import threading
from collections.abc import Mapping
from contextlib import suppress
from pathlib import Path
from types import TracebackType
from typing import Any, Self

import anndata
import h5py
import numpy as np
import pandas as pd
from numpy.typing import NDArray

from cellstamp.errors import OutputError
from cellstamp.h5sc.chunk_offsets import ChunkFinder
from cellstamp.h5sc.journal import Entry, Journal, checksum
from cellstamp.h5sc.layout import ANNOTATION, CELL_ID, EXCEEDS, HDF5_BOUND, IMAGES, OURS, REGION, Layout
from cellstamp.h5sc.writeback import Writeback

_WRITEBACK_BYTES = 2**27
"""The disk is given something to do whenever so much has been written: seldom enough that writing is not held up."""


_SPARE_BYTES = 2**18
"""Kept free for closing the file and the journal on a disk that is full."""


class StampWriter:
    """An `.h5sc` file being written. A context manager; the file is whole when it was left without an error.

    Parameters
    ----------
    path
        The file; it must not exist, unless it is gone on with.
    layout
        What it holds.
    journal
        The journal, see `cellstamp.h5sc.journal`; made when it is not there.
    made_from
        What the file is made from, for the journal.
    go_on
        Whether the file is there, and was closed as it should be.

    Attributes
    ----------
    is_written
        bool (n_cells,): which cells are in the file.
    n_empty
        int64 (n_masks,): for each mask, how many of them have no pixel of it in their window.
    on_edge
        bool (n_cells,): which of them have a cell mask that reaches the edge of the window.
    """

    def __init__(
        self, path: Path, layout: Layout, journal: Path, made_from: Mapping[str, Any], *, go_on: bool = False
    ) -> None:
        self._path = path
        # who may write is settled by the lock on the folder; HDF5's own fails on network file systems without locks
        self._file = h5py.File(path, "r+" if go_on else "x", libver=HDF5_BOUND, locking=False)
        try:
            if not go_on:
                _write_frame(self._file, layout)
            self._journal = Journal(journal, dict(made_from))
        except BaseException:
            self._file.close()
            raise
        self._id = self._file[f"obsm/{IMAGES}"].id
        self._raw_bytes = np.dtype(layout.dtype).itemsize * layout.image_size**2
        self._unfiltered = 0 if layout.compression is None else 1
        self._committing = threading.Lock()
        self._writeback = Writeback(self._commit)
        self._fresh_bytes = 0
        self._is_reserved = False
        self._spare = journal.with_name("spare")
        self._finder = ChunkFinder(self._id, self._file.id.get_vfd_handle())
        self.is_written = np.zeros(layout.shape[0], np.bool_)
        self.on_edge = np.zeros(layout.shape[0], np.bool_)
        self.n_empty = np.zeros(len(layout.mask_names), np.int64)

    def write(
        self,
        rows: NDArray[np.int64],
        sizes: NDArray[np.int64],
        payload: NDArray[np.uint8],
        n_empty: NDArray[np.int64],
        on_edge: NDArray[np.int64],
    ) -> None:
        """Store the finished chunks of some cells.

        Parameters
        ----------
        rows
            (n,): where the cells stand in the file.
        sizes
            (n, n_planes): bytes of each chunk. A chunk of full size has not been through the filter, and is marked so.
        payload
            The chunks, one after the other.
        n_empty
            (n_masks,): for each mask, how many of the cells have no pixel of it.
        on_edge
            The rows among them whose cell mask reaches the edge of the window.

        Raises
        ------
        OutputError
            If the file cannot be written.
        """
        try:
            self._write_chunks(rows.tolist(), sizes.tolist(), payload)
            if not self._is_reserved:
                self._reserve()
        except (OSError, RuntimeError) as error:
            raise unwritable(self._path, error, payload.nbytes) from error
        extents = self._finder.find(rows, sizes, payload)
        sums = checksum(payload), n_empty.tolist(), on_edge.tolist()
        self._journal.add(Entry(rows.tolist(), sizes.ravel().tolist(), extents, *sums))
        self.note_written(rows, n_empty, on_edge)
        self._fresh_bytes += payload.nbytes
        if self._fresh_bytes >= _WRITEBACK_BYTES:
            self._writeback.begin()
            self._fresh_bytes = 0

    def _write_chunks(self, rows: list[int], sizes: list[list[int]], payload: NDArray[np.uint8]) -> None:
        write, raw, unfiltered = self._id.write_direct_chunk, self._raw_bytes, self._unfiltered
        view, at = payload.data, 0
        for row, planes in zip(rows, sizes, strict=True):
            for plane, size in enumerate(planes):
                write((row, plane, 0, 0), view[at : at + size], unfiltered if size == raw else 0)
                at += size

    def _reserve(self) -> None:
        """Have the disk set aside what closing the file will need: the index of the chunks, and something to spare.

        Should the disk be full by then, HDF5 could neither write nor close the file, and would crash the process when
        it ends (2.0 does).
        """
        self._is_reserved = True
        _set_aside(self._file.id.get_vfd_handle(), self._file.id.get_filesize())
        with self._spare.open("wb") as spare:
            _set_aside(spare.fileno(), _SPARE_BYTES)

    def note_written(self, rows: Any, n_empty: Any, on_edge: Any) -> None:
        """Take in that cells are in the file."""
        self.is_written[rows] = True
        self.on_edge[on_edge] = True
        self.n_empty += n_empty

    def describe(self, about: Mapping[str, Any], exceeding: NDArray[np.int64]) -> None:
        """Write what is known at the end.

        Parameters
        ----------
        about
            What made the file, and from what (``uns/cellstamp``): numbers, text, and lists and dicts of them.
        exceeding
            Rows of the cells that reach out of their crops.
        """
        anndata.io.write_elem(self._file["uns"], OURS, dict(about))
        column = np.zeros(self.is_written.size, np.bool_)
        column[exceeding] = True
        self._file[f"obs/{EXCEEDS}"][...] = column

    def flush(self) -> None:
        """Bring everything written so far to the disk, and into the journal.

        Raises
        ------
        OutputError
            If that does not succeed.
        """
        try:
            self._commit()
            self._writeback.check()
        except OSError as error:
            raise unwritable(self._path, error, 0) from error

    def _commit(self) -> None:
        with self._committing:
            entries = self._journal.take()
            os.fsync(self._file.id.get_vfd_handle())
            self._journal.append(entries)

    def __enter__(self) -> Self:
        """Begin writing."""
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        """Bring the file to the disk and close it, also after an error: what is written is gone on with later."""
        closed = False
        try:
            self._spare.unlink(missing_ok=True)
            # the journal first: should the rest fail, nothing that was written is lost
            self._commit()
            self._file.flush()
            self.flush()
            self._writeback.stop()
            self._file.close()
            closed = True
        except (OSError, RuntimeError, OutputError) as failure:
            # after an error it is that which has to be told
            if kind is None:
                raise unwritable(self._path, failure, 0) from failure
        finally:
            self._writeback.stop()
            with suppress(OSError, RuntimeError):
                self._file.close()
            self._journal.close(file_is_closed=closed)


def _set_aside(descriptor: int, n_bytes: int) -> None:
    """Have the disk take the first bytes of a file for its own, where it can."""
    if hasattr(os, "posix_fallocate"):
        try:
            os.posix_fallocate(descriptor, 0, n_bytes)
        except OSError as error:
            if error.errno not in (errno.EOPNOTSUPP, errno.EINVAL, errno.ENOSYS):
                raise


def unwritable(path: Path, error: Exception, n_bytes: int) -> OutputError:
    """Say what could not be written, and what to do."""
    needed = f" ({n_bytes:,} more bytes were to be written)" if n_bytes else ""
    return OutputError(
        f"{path} cannot be written{needed}: {' '.join(str(error).split())}. What is finished is kept: make room, or "
        "mend the folder, and extract again: it goes on from there"
    )


def _write_frame(file: h5py.File, layout: Layout) -> None:
    """Write everything but the stamps, in the encodings that readers in use know (see `_text`)."""
    n_cells, n_planes = layout.shape[:2]
    file.attrs.update({"encoding-type": "anndata", "encoding-version": "0.1.0"})
    x, y = layout.centers.T
    region = pd.Categorical.from_codes(np.zeros(n_cells, np.int8), categories=_text([layout.region]))
    columns = {CELL_ID: layout.cell_ids, REGION: region, "x": x, "y": y, EXCEEDS: False}
    obs = pd.DataFrame(columns, index=_text(map(str, range(n_cells))))
    kinds = pd.Categorical(layout.kinds, categories=_text(sorted(set(layout.kinds))))
    var = pd.DataFrame({"channel_mapping": kinds}, index=_text(map(str, range(n_planes))))
    var.insert(0, "channels", pd.Series(layout.names, index=var.index, dtype=object))
    elements = {
        "obs": obs,
        "var": var,
        "obsm": {"spatial": layout.centers},
        "uns": {IMAGES: layout.description(), ANNOTATION: layout.annotation()},
        **{name: {} for name in ("layers", "obsp", "varm", "varp")},
    }
    for name, element in elements.items():
        anndata.io.write_elem(file, name, element)
    images = file.create_dataset(
        f"obsm/{IMAGES}", layout.shape, layout.dtype, chunks=layout.chunks, compression=layout.compression
    )
    images.attrs.update(layout.attributes())


def _text(words: object) -> pd.Index:
    """An index of plain Python strings: pandas 3 would choose a type that anndata stores in a newer encoding."""
    return pd.Index(list(words), dtype=object)  # type: ignore[call-overload]
