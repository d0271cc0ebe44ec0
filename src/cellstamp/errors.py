"""Define the errors that cellstamp raises. Each is also a subclass of the matching builtin error."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from upath import UPath


class CellstampError(Exception):
    """Base class of all errors of cellstamp."""


class ConfigError(CellstampError, ValueError):
    """A configuration or an argument is invalid."""


class InputError(CellstampError, ValueError):
    """An image, a mask, a table of centres or a store is missing or invalid."""


class OutputError(CellstampError, ValueError):
    """A result already exists, or cannot be written."""


class WorkerError(CellstampError, RuntimeError):
    """A batch failed in a worker, or a worker died."""


def unwritable(path: Path | UPath, error: Exception, n_bytes: int = 0) -> OutputError:
    """Return the error for a file that cannot be written, with the fix."""
    if not isinstance(path, Path):
        reason = " ".join(f"{type(error).__name__}: {error}".split())
        return OutputError(
            f"{path} cannot be written: {reason}. Check the address, and whether you may write there, and extract again"
        )
    needed = f" ({n_bytes:,} more bytes were to be written)" if n_bytes else ""
    return OutputError(
        f"{path} cannot be written{needed}: {' '.join(str(error).split())}. Free disk space or repair the folder, and "
        "extract again"
    )


@contextmanager
def writing(path: Path | UPath, n_bytes: int = 0) -> Iterator[None]:
    """Raise errors of the system and of HDF5 as `OutputError` about this file; see `unwritable`."""
    # HDF5 raises both kinds on a full disk; each remote file system raises different errors
    kinds = (OSError, RuntimeError) if isinstance(path, Path) else (Exception,)
    try:
        yield
    except CellstampError:
        raise
    except kinds as error:
        raise unwritable(path, error, n_bytes) from error


def note_finished(error: BaseException, n_done: int, n_cells: int) -> None:
    """Add the number of finished cells that the next run starts from to an error or interrupt, if there are any."""
    if n_done:
        error.add_note(f"Finished cells are kept ({n_done:,} of {n_cells:,}): run again to resume")


def notes_of(error: BaseException) -> list[str]:
    """Return the notes that were added to an error; see `BaseException.add_note`."""
    return list(getattr(error, "__notes__", ()))


@contextmanager
def reworded(reword: Callable[[str], str]) -> Iterator[None]:
    """Change the messages of errors, such as names of temporary folders, which a user does not know."""
    try:
        yield
    except CellstampError as error:
        error.args = tuple(reword(each) if isinstance(each, str) else each for each in error.args)
        raise
