"""Record the measurements of a run without single-cell images, in a journal: its features are complete entries."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from cellstamp.encoded_cells import EncodedCells
from cellstamp.errors import OutputError, writing
from cellstamp.h5sc.journal import Entry, Journal, read_entries
from cellstamp.h5sc.layout import Layout
from cellstamp.h5sc.unfinished import JOURNAL
from cellstamp.h5sc.written_cells import WrittenCells
from cellstamp.system import sync_folder


class MeasuredWriter:
    """Records which cells are measured; their features are in the entries of the journal.

    Parameters
    ----------
    journal
        Path of the journal. An existing one is continued.
    layout
        Cells and masks.
    made_from
        Inputs and settings, for a new journal.

    Attributes
    ----------
    written
        The cells that are measured.
    """

    def __init__(self, journal: Path, layout: Layout, made_from: Mapping[str, Any]) -> None:
        self._path = journal
        self.written = WrittenCells(layout)
        with writing(journal):
            self._journal = Journal(journal, dict(made_from), layout.planes_per_chunk)
        for entry in read_entries(journal):
            self.written.note(entry.rows, entry.on_edge, entry.n_empty)

    def write(self, cells: EncodedCells) -> None:
        """Keep an entry for some cells until `flush`."""
        self._journal.add(Entry.of(cells, []))
        self.written.note(cells.rows, cells.on_edge, cells.n_empty)

    def describe(self, about: Mapping[str, Any], exceeding: NDArray[np.int64]) -> None:
        """Do nothing: the description is in the table of features."""

    def flush(self) -> None:
        """Bring all entries to the disk.

        Raises
        ------
        OutputError
            If this fails.
        """
        with writing(self._path):
            self._journal.append(self._journal.take())

    def close(self) -> None:
        """Close the journal; the next run continues it."""
        self._journal.close(file_is_closed=False)


@contextmanager
def open_measured(work: Path, layout: Layout, about: Mapping[str, Any]) -> Iterator[tuple[Path, MeasuredWriter]]:
    """Open the journal of a run without images, with all cells that an interrupted run has measured.

    Parameters
    ----------
    work
        Folder of unfinished results.
    layout, about
        Cells and masks; inputs and settings.

    Yields
    ------
    Path, MeasuredWriter
        Folder of the journal, and its writer.
    """
    folder = work / "1"
    folder.mkdir(exist_ok=True)
    writer = MeasuredWriter(folder / JOURNAL, layout, about)
    try:
        for place in (folder, work, work.parent):
            sync_folder(place)
        yield folder, writer
        writer.flush()
    except BaseException:
        with suppress(OutputError):  # the earlier error is raised instead
            writer.flush()
        raise
    finally:
        writer.close()
