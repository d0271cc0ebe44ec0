"""Resume an interrupted run: keep its unfinished file, or copy its finished images into a new one.

The folder of unfinished results has a numbered folder for each attempt, with a file and its journal. The next run
continues a file that was closed properly. A file that was not closed has no index: its images are copied into a new
file in the next numbered folder, and the old one is removed when they are on disk. So the lowest number always has all
finished cells.

A run is resumed with the chunks it began with, which had one plane in earlier versions: no image is encoded again.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager, suppress
from dataclasses import replace
from pathlib import Path
from typing import Any

from cellstamp.errors import OutputError, note_finished
from cellstamp.h5sc.journal import count_cells, is_closed, read_about, read_entries, read_planes_per_chunk
from cellstamp.h5sc.layout import FILE_NAME, RESULT_NAMES, Layout
from cellstamp.h5sc.writer import StampWriter
from cellstamp.system import RawFile, remove_folder, sync_folder

JOURNAL = "journal"


def settle(work: Path, about: Mapping[str, Any], *, overwrite: bool, log: Callable[[str], None]) -> None:
    """Check whether unfinished results match this run; remove those that do not.

    Parameters
    ----------
    work
        Folder of unfinished results.
    about
        Inputs and settings of this run.
    overwrite
        Whether to remove results of other inputs or settings.
    log
        Called with a line for each removed folder.

    Raises
    ------
    OutputError
        If there are results of other inputs or settings, and ``overwrite`` is not set.
    """
    attempts = attempts_in(work)
    before = read_about(attempts[0] / JOURNAL) if attempts else None
    if before == about:
        return
    if before is not None and not overwrite and n_finished(work):
        changed = [
            f"  {key}: {before.get(key)} -> {about.get(key)}"
            for key in {**before, **about}
            if before.get(key) != about.get(key)
        ]
        message = (
            f"{work} has unfinished results of a run with other inputs or settings:\n"
            + "\n".join(changed)
            + "\nSet overwrite=True to discard them, or restore the old inputs and settings to resume"
        )
        raise OutputError(message)
    for attempt in _numbered(work):
        log(f"Removed unfinished results that cannot be resumed: {attempt}")
        remove_folder(attempt)


def n_finished(work: Path) -> int:
    """Count the finished cells."""
    return sum(count_cells(attempt / JOURNAL) for attempt in attempts_in(work)[:1])


@contextmanager
def noting_finished(work: Path, n_cells: int) -> Iterator[None]:
    """Add the number of finished cells to errors and interrupts, if there are any. Writers are closed before.

    Parameters
    ----------
    work
        Folder of unfinished results.
    n_cells
        Number of all cells.
    """
    try:
        yield
    except BaseException as error:
        with suppress(OSError):
            note_finished(error, n_finished(work), n_cells)
        raise


@contextmanager
def open_writer(
    work: Path, layout: Layout, about: Mapping[str, Any], log: Callable[[str], None]
) -> Iterator[tuple[Path, StampWriter]]:
    """Open a file to write, with all cells that an interrupted run has finished; close it afterwards.

    Parameters
    ----------
    work
        Folder of unfinished results.
    layout, about
        Layout of the file, and its inputs and settings.
    log
        Called with a line about finished cells that could not be read back.

    Yields
    ------
    Path, StampWriter
        Folder of the file, and its writer.
    """
    before = next(iter(attempts_in(work)), None)
    if before is not None:
        layout = replace(layout, begun_with=read_planes_per_chunk(before / JOURNAL))
    for useless in _numbered(work):
        if useless != before:
            remove_folder(useless)
    if before is not None and (writer := _reopen(before, layout, about)) is not None:
        with writer:
            yield before, writer
        return
    folder = work / ("1" if before is None else str(int(before.name) + 1))
    folder.mkdir()
    with StampWriter(folder / FILE_NAME, layout, folder / JOURNAL, about) as writer:
        for place in (folder, work, work.parent):
            sync_folder(place)
        if before is not None:
            _carry(before, writer, log)
        yield folder, writer


def _numbered(work: Path) -> list[Path]:
    """Return the folders of attempts, in order."""
    return sorted((path for path in work.glob("*") if path.name.isdigit()), key=lambda path: int(path.name))


def attempts_in(work: Path) -> list[Path]:
    """Return the folders of attempts with results and a journal, in order."""
    return [path for path in _numbered(work) if (path / JOURNAL).is_file() and _has_result(path)]


def _has_result(attempt: Path) -> bool:
    """Return whether an attempt has the images that its journal lists. Without images, the journal has everything."""
    if any((attempt / name).exists() for name in RESULT_NAMES):
        return True
    about = read_about(attempt / JOURNAL)
    return about is not None and about.get("images") is False


def _reopen(attempt: Path, layout: Layout, about: Mapping[str, Any]) -> StampWriter | None:
    """Continue a file; None if it was not closed properly."""
    journal = attempt / JOURNAL
    if not is_closed(journal):
        return None
    try:
        writer = StampWriter(attempt / FILE_NAME, layout, journal, about, resume=True)
    except OutputError:
        return None
    for entry in read_entries(journal):
        writer.written.note(entry.rows, entry.on_edge, entry.n_empty)
    return writer


def _carry(attempt: Path, writer: StampWriter, log: Callable[[str], None]) -> None:
    """Copy the finished cells of an attempt, and remove it."""
    n_lost = 0
    with RawFile(attempt / FILE_NAME) as file:
        for entry in read_entries(attempt / JOURNAL):
            cells = entry.read(file)
            if cells is None:
                n_lost += len(entry.rows)
            else:
                writer.write(cells)
    if n_lost:
        log(f"Could not read {n_lost} finished cells from {attempt}: extracting them again")
    writer.flush()
    remove_folder(attempt)
