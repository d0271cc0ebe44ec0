"""Write selections to files: ids that ``cells:`` of an extraction takes, and columns of the table of features."""

from __future__ import annotations

import os
import re
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pandas as pd

from cellstamp.errors import ConfigError, OutputError
from cellstamp.system import replace_file, sync_file

_NAME = re.compile(r"[\w][\w .+-]{0,99}")
"""Names of files and columns: no separators of paths, and no leading dot."""
_MOST_BYTES = 200
"""Bytes of a name; file systems take 255, with the extension."""


class ExistsError(OutputError):
    """Something with this name exists, and the user has not agreed to replace it."""


@dataclass(frozen=True)
class SavedIds:
    """The text of a CSV file, and where it was written; None: nowhere, the browser downloads it."""

    name: str
    text: str
    path: Path | None


def checked_name(name: Any, what: str) -> str:
    """Return a name of a file or a column without spaces around it.

    Raises
    ------
    ConfigError
        If it is empty, or could be a path.
    """
    text = str(name or "").strip()
    if not _NAME.fullmatch(text) or len(text.encode()) > _MOST_BYTES:
        raise ConfigError(
            f"{what} = {name!r}: must be a name of up to 100 letters, digits, spaces and _ . + -, and begin with a "
            "letter, a digit or _, such as mitotic"
        )
    return text


def save_ids(folder: Path | None, name: str, ids: pd.Series[Any], *, overwrite: bool) -> SavedIds:
    """Write ids to ``NAME.csv`` in a folder, which is created; without a folder, only return the text.

    Parameters
    ----------
    ids
        Numbers or texts; its name is the header.

    Raises
    ------
    ConfigError
        If no cells are selected, or the name is invalid.
    ExistsError
        If the file exists, and may not be overwritten.
    OutputError
        If it cannot be written.
    """
    file = f"{checked_name(name, 'name').removesuffix('.csv')}.csv"
    if not ids.size:
        raise ConfigError("no cells are selected: select some first")
    text = ids.to_csv(index=False, lineterminator="\n")
    if folder is None:
        return SavedIds(file, text, None)
    path = folder / file
    if path.exists() and not overwrite:
        raise ExistsError(f"{path} exists")
    _write(path, text)
    return SavedIds(file, text, path)


def _write(path: Path, text: str) -> None:
    aside = path.with_name(f".{path.name}.{os.getpid()}")
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        aside.write_text(text, encoding="utf-8")
        sync_file(aside)
        replace_file(aside, path)
    except OSError as error:
        with suppress(OSError):
            aside.unlink(missing_ok=True)
        raise OutputError(f"{path} cannot be written: {error.strerror or error}. Choose another folder") from error
