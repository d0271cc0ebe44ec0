"""What a run that was ended has left, and how the next one goes on with it.

The folder of unfinished work has a numbered folder for each attempt, with a file and its journal. A file that was
closed as it should be is gone on with as it is. One that was not has no index: its stamps are carried into a new file
in the next numbered folder, and it goes when they are safe there. So the lowest number always has all that is known.
"""

from __future__ import annotations

import shutil
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np

from cellstamp.errors import OutputError
from cellstamp.h5sc.journal import is_closed, read_about, read_entries
from cellstamp.h5sc.layout import FILE_NAME, Layout
from cellstamp.h5sc.writeback import sync
from cellstamp.h5sc.writer import StampWriter

_JOURNAL = "journal"


def settle(work: Path, about: Mapping[str, Any], *, overwrite: bool, log: Callable[[str], None]) -> None:
    """Decide whether what was left can be gone on with; what cannot is removed.

    Parameters
    ----------
    work
        The folder of unfinished work.
    about
        What the result is made from.
    overwrite
        Whether what was made from something else may go.
    log
        Told of what goes.

    Raises
    ------
    OutputError
        If something was made from something else, and may not go.
    """
    attempts = _attempts(work)
    before = read_about(attempts[0] / _JOURNAL) if attempts else None
    if before == about:
        return
    if before is not None and not overwrite and n_finished(work):
        changed = [
            f"  {key}: {before.get(key)} then, {about.get(key)} now"
            for key in {**before, **about}
            if before.get(key) != about.get(key)
        ]
        message = (
            f"{work} holds what a run has left unfinished that was made from something else:\n"
            + "\n".join(changed)
            + "\nSet overwrite=True to begin anew, or extract as then to finish it"
        )
        raise OutputError(message)
    for attempt in _numbered(work):
        log(f"what an earlier run left in {attempt} cannot be gone on with, and is removed")
        shutil.rmtree(attempt)


def n_finished(work: Path) -> int:
    """Count the cells whose stamps there are."""
    return sum(len(entry.rows) for attempt in _attempts(work)[:1] for entry in read_entries(attempt / _JOURNAL))


@contextmanager
def open_writer(
    work: Path, layout: Layout, about: Mapping[str, Any], log: Callable[[str], None]
) -> Iterator[tuple[Path, StampWriter]]:
    """Open a file to write, with all stamps in it that were left in the folder of unfinished work; close it afterwards.

    Parameters
    ----------
    work
        The folder of unfinished work.
    layout, about
        What the result holds, and what it is made from.
    log
        Told of stamps that are not there after all.

    Yields
    ------
    Path, StampWriter
        The folder the file is in, and the writer.
    """
    before = next(iter(_attempts(work)), None)
    for useless in _numbered(work):
        if useless != before:
            shutil.rmtree(useless)
    if before is not None and (writer := _reopen(before, layout, about)) is not None:
        with writer:
            yield before, writer
        return
    folder = work / ("1" if before is None else str(int(before.name) + 1))
    folder.mkdir()
    with StampWriter(folder / FILE_NAME, layout, folder / _JOURNAL, about) as writer:
        for place in (folder, work, work.parent):
            sync(place)
        if before is not None:
            _carry(before, writer, log)
        yield folder, writer


def _numbered(work: Path) -> list[Path]:
    """Folders of attempts, in order."""
    return sorted((path for path in work.glob("*") if path.name.isdigit()), key=lambda path: int(path.name))


def _attempts(work: Path) -> list[Path]:
    """Folders of attempts that have come as far as a file and a journal, in order."""
    return [path for path in _numbered(work) if (path / FILE_NAME).is_file() and (path / _JOURNAL).is_file()]


def _reopen(attempt: Path, layout: Layout, about: Mapping[str, Any]) -> StampWriter | None:
    """Go on with a file; None if it was not closed as it should be."""
    journal = attempt / _JOURNAL
    if not is_closed(journal):
        return None
    entries = list(read_entries(journal))
    try:
        writer = StampWriter(attempt / FILE_NAME, layout, journal, about, go_on=True)
    except OSError:
        return None
    for entry in entries:
        writer.note_written(entry.rows, entry.n_empty, entry.on_edge)
    return writer


def _carry(attempt: Path, writer: StampWriter, log: Callable[[str], None]) -> None:
    """Write what an attempt has left, and remove it."""
    n_lost = 0
    with (attempt / FILE_NAME).open("rb") as file:
        for entry in read_entries(attempt / _JOURNAL):
            payload = entry.read(file.fileno())
            if payload is None:
                n_lost += len(entry.rows)
                continue
            rows, n_empty, on_edge = np.array(entry.rows), np.array(entry.n_empty), np.array(entry.on_edge, np.int64)
            writer.write(rows, np.array(entry.sizes).reshape(rows.size, -1), payload, n_empty, on_edge)
    if n_lost:
        log(f"{n_lost} finished cells could not be read back from {attempt}, and are made again")
    writer.flush()
    shutil.rmtree(attempt)
