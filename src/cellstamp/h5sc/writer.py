"""Write an `.h5sc` file: its tables and attributes first, then encoded images in any order."""

from __future__ import annotations

from collections.abc import Mapping
from contextlib import ExitStack, suppress
from pathlib import Path
from types import TracebackType
from typing import Any, Self

import anndata
import h5py
import numpy as np
from numpy.typing import NDArray

from cellstamp.encoded_cells import EncodedCells
from cellstamp.errors import OutputError, writing
from cellstamp.h5sc.chunk_offsets import ChunkFinder
from cellstamp.h5sc.journal import Entry, Journal
from cellstamp.h5sc.layout import EXCEEDS, IMAGES, OURS, Layout
from cellstamp.h5sc.new_file import bytes_of_tables, new_file, reopened
from cellstamp.h5sc.space_ahead import SpaceAhead
from cellstamp.h5sc.tables import marks, tables_of, write_to_file
from cellstamp.h5sc.writeback import Writeback
from cellstamp.h5sc.written_cells import WrittenCells
from cellstamp.system import RawFile, return_freed_memory

_WRITEBACK_BYTES = 2**27
"""Written bytes after which they are brought to the disk in the background: rarely enough not to delay writing."""

_SPARE_BYTES = 2**18
"""Reserved on the disk, so that the file and the journal can be closed when it is full."""


class StampWriter:
    """Write an `.h5sc` file. A context manager; the file is complete after leaving it without an error.

    Parameters
    ----------
    path
        The file. It must not exist, unless ``resume`` is set.
    layout
        Cells, planes and pixel type of the file.
    journal
        Path of the journal, see `cellstamp.h5sc.journal`. A missing one is created.
    made_from
        Inputs and settings of the file, for the journal.
    resume
        Whether to continue an existing file that was closed properly.

    Attributes
    ----------
    planes_per_chunk
        Number of planes in the chunks that `write` expects.
    written
        The cells that are in the file.
    """

    def __init__(
        self, path: Path, layout: Layout, journal: Path, made_from: Mapping[str, Any], *, resume: bool = False
    ) -> None:
        self._path = path
        with writing(path), ExitStack() as opened:
            self._file = opened.enter_context(reopened(path) if resume else new_file(path, bytes_of_tables(layout)))
            if not resume:
                _write_tables(self._file, layout)
            self._raw = opened.enter_context(RawFile(path, writable=True))
            self._journal = Journal(journal, dict(made_from), layout.planes_per_chunk)
            opened.pop_all()
        self._id = self._file[f"obsm/{IMAGES}"].id
        self._chunk_bytes = layout.chunk_bytes
        self._unfiltered = 0 if layout.compression is None else 1
        self._writeback = Writeback(self._commit)
        self._fresh_bytes = 0
        self._is_reserved = False
        self._ahead = SpaceAhead(path, self._raw)
        self._spare = journal.with_name("spare")
        self._finder = ChunkFinder(self._id, self._raw)
        self.planes_per_chunk = layout.planes_per_chunk
        self.written = WrittenCells(layout)

    def write(self, cells: EncodedCells) -> None:
        """Store the images of some cells.

        Raises
        ------
        OutputError
            If the file cannot be written.
        """
        with writing(self._path, cells.payload.nbytes):
            self._ahead.reserve(cells.payload.nbytes)
            self._write_chunks(cells)
            if not self._is_reserved:
                self._reserve()
        self._journal.add(Entry.of(cells, self._finder.find(cells)))
        self.written.note(cells.rows, cells.on_edge, cells.n_empty)
        self._fresh_bytes += cells.payload.nbytes
        if self._fresh_bytes >= _WRITEBACK_BYTES:
            self._writeback.begin()
            self._fresh_bytes = 0

    def _write_chunks(self, cells: EncodedCells) -> None:
        write, raw, unfiltered = self._id.write_direct_chunk, self._chunk_bytes, self._unfiltered
        view, at, per_chunk = cells.payload.data, 0, self.planes_per_chunk
        for row, sizes in zip(cells.rows.tolist(), cells.sizes.tolist(), strict=True):
            for number, size in enumerate(sizes):
                # the filter mask of a chunk says that it did not go through the filter
                write((row, number * per_chunk, 0, 0), view[at : at + size], unfiltered if size == raw else 0)
                at += size

    def _reserve(self) -> None:
        """Reserve disk space for closing the file: for its index of chunks, and some more.

        On a full disk, HDF5 can neither write nor close the file, and HDF5 2.0 crashes the process when it exits.
        """
        self._is_reserved = True
        self._raw.reserve(self._file.id.get_filesize())
        self._spare.touch()
        with RawFile(self._spare, writable=True) as spare:
            spare.reserve(_SPARE_BYTES)

    def describe(self, about: Mapping[str, Any], exceeding: NDArray[np.int64]) -> None:
        """Write the parts that are known at the end.

        Parameters
        ----------
        about
            Content of ``uns/cellstamp``: numbers, text, and lists and dicts of them.
        exceeding
            Rows of the cells that extend beyond their crops.

        Raises
        ------
        OutputError
            If the file cannot be written.
        """
        with writing(self._path):
            anndata.io.write_elem(self._file["uns"], OURS, dict(about))
            self._file[f"obs/{EXCEEDS}"][...] = marks(self.written.is_written.size, exceeding)

    def flush(self) -> None:
        """Bring all written cells to the disk, and their entries into the journal.

        Raises
        ------
        OutputError
            If this fails.
        """
        with writing(self._path):
            self._writeback.finish()

    def _commit(self) -> None:
        entries = self._journal.take()
        self._raw.sync()
        self._journal.append(entries)

    def __enter__(self) -> Self:
        """Return the writer."""
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        """Bring the file to the disk and close it, also after an error: the next run continues it."""
        closed = False
        try:
            # an earlier error is raised instead of this one
            with suppress(*([OutputError] if kind else [])), writing(self._path):
                self._spare.unlink(missing_ok=True)
                # the journal first: if the rest fails, no written cell is lost
                self._writeback.finish()
                self._file.flush()
                self.flush()
                self._writeback.stop()
                self._file.close()
                closed = True
        finally:
            self._writeback.stop()
            with suppress(OSError, RuntimeError):
                self._file.close()
            with suppress(OSError):
                self._raw.release_ahead()
            self._raw.close()
            self._journal.close(file_is_closed=closed)


def _write_tables(file: h5py.File, layout: Layout) -> None:
    """Write everything but the images, and make room for these."""
    write_to_file(file, tables_of(layout))
    images = file.create_dataset(
        f"obsm/{IMAGES}", layout.shape, layout.dtype, chunks=layout.chunks, compression=layout.compression
    )
    images.attrs.update(layout.attributes())
    file.flush()  # releases the rest of the reserved space
    return_freed_memory()
