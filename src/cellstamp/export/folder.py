"""The folder of an export: its record, complete files in it, and atomic writing."""

from __future__ import annotations

import json
import os
from collections.abc import Callable, Iterator, Mapping
from contextlib import suppress
from pathlib import Path
from typing import IO, Any

import numpy as np
from numpy.typing import NDArray

from cellstamp.errors import OutputError, writing
from cellstamp.export.file_names import TABLE, FileNames, is_exported
from cellstamp.system import remove, replace_file

RECORD = ".cellstamp_export.json"
"""File with the settings of the export in a folder."""
_UNFINISHED = ".unfinished"
"""Folder of files that are being written."""


class ExportFolder:
    """A folder to export to."""

    def __init__(self, path: Path) -> None:
        self.path = path

    @property
    def table(self) -> Path:
        """Path of the table of cells, written when all other files are complete."""
        return self.path / TABLE

    def settings(self) -> dict[str, Any] | None:
        """Return the settings of the export in the folder.

        Returns
        -------
        dict or None
            None: the folder is empty.

        Raises
        ------
        OutputError
            If the folder has files that are not of an export.
        """
        with suppress(OSError, ValueError, KeyError, TypeError):
            return dict(json.loads((self.path / RECORD).read_text(encoding="utf-8"))["settings"])
        others = sorted(each.name for each in self.path.iterdir() if not each.name.startswith("."))
        if others:
            shown = ", ".join(others[:3]) + (", ..." if len(others) > 3 else "")
            raise OutputError(
                f"{self.path}: this folder has files that are not of an export ({shown}). Give an empty or a new folder"
            )
        return None

    def begin(self, settings: Mapping[str, Any]) -> None:
        """Write the settings of an export, and make the folder for unfinished files.

        Raises
        ------
        OutputError
            If they cannot be written.
        """
        with writing(self.path / RECORD):
            remove(self.path / _UNFINISHED)
            (self.path / _UNFINISHED).mkdir()
        text = json.dumps({"settings": settings}, indent=1)
        self.write(RECORD, lambda file: file.write(text.encode()))

    def finish(self) -> None:
        """Remove the folder for unfinished files."""
        remove(self.path / _UNFINISHED)

    def clear(self) -> None:
        """Remove the files of an earlier export, the record last. Other files stay."""
        for folder in self.path.iterdir():
            if folder.is_dir() and is_exported(folder.name, is_folder=True):
                _remove_exported(folder)
                with suppress(OSError):  # it has other files
                    folder.rmdir()
        _remove_exported(self.path)
        remove(self.path / _UNFINISHED)
        remove(self.path / RECORD)

    def make_folder(self, name: str) -> None:
        """Make a folder for files; an empty name stands for the exported folder."""
        with writing(self.path / name):
            (self.path / name).mkdir(exist_ok=True)

    def write(self, name: str, fill: Callable[[IO[bytes]], object]) -> None:
        """Write a file, which appears when it is complete. Thread-safe.

        Parameters
        ----------
        name
            Its path in the folder, with slashes.
        fill
            Writes its content.

        Raises
        ------
        OutputError
            If it cannot be written.
        """
        target, unfinished = self.path / name, self.path / _UNFINISHED / name.replace("/", "_")
        with writing(target):
            with unfinished.open("wb") as file:
                fill(file)
            replace_file(unfinished, target)

    def is_written(self, name: str) -> bool:
        """Return whether a file is complete. A power failure can leave empty files."""
        with suppress(OSError):
            return (self.path / name).stat().st_size > 0
        return False

    def missing(self, names: FileNames) -> NDArray[np.int64]:
        """Return the places of the cells that lack a complete file, ascending: int64 (n,)."""
        found = [place for number in range(names.n_folders) for place in self._missing_in(number, names)]
        return np.array(found, np.int64)

    def _missing_in(self, number: int, names: FileNames) -> Iterator[int]:
        # one folder at a time: all names together take 0.1 KiB of memory for each cell
        written = _written_in(self.path / names.folder(number))
        for place in names.in_folder(number):
            if not all(name.rpartition("/")[2] in written for name in names.of(place)):
                yield place


def _written_in(folder: Path) -> set[str]:
    if not folder.is_dir():
        return set()
    with os.scandir(folder) as entries:
        return {entry.name for entry in entries if entry.is_file() and entry.stat().st_size}


def _remove_exported(folder: Path) -> None:
    for file in folder.iterdir():
        if file.is_file() and is_exported(file.name, is_folder=False):
            file.unlink()
