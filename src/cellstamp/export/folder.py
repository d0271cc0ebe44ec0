"""The folder of an export: its record, complete files in it, and atomic writing."""

from __future__ import annotations

import json
import os
from collections.abc import Callable, Iterator, Mapping
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import IO, Any

import numpy as np
from numpy.typing import NDArray

from cellstamp.errors import OutputError, writing
from cellstamp.export.file_names import TABLE, FileNames, Names, recorded
from cellstamp.system import remove, replace_file

RECORD = ".cellstamp_export.json"
"""File with the settings of the export in a folder."""
_UNFINISHED = ".cellstamp_export.unfinished"
"""Folder of files that are being written."""


@dataclass(frozen=True)
class Begun:
    """The record of an export.

    Attributes
    ----------
    settings
        Its settings.
    names
        Names of its files.
    """

    settings: dict[str, Any]
    names: Names


class ExportFolder:
    """A folder to export to."""

    def __init__(self, path: Path) -> None:
        self.path = path

    @property
    def table(self) -> Path:
        """Path of the table of cells, written when all other files are complete."""
        return self.path / TABLE

    @property
    def has_record(self) -> bool:
        """Whether an export was begun in the folder. Its record may be damaged, see `begun`."""
        return (self.path / RECORD).is_file()

    def begun(self) -> Begun | None:
        """Return the record of the export in the folder; None: there is none, or it is damaged."""
        with suppress(OSError, ValueError, KeyError, TypeError, OverflowError):
            record = json.loads((self.path / RECORD).read_text(encoding="utf-8"))
            return Begun(dict(record["settings"]), recorded(record["files"]))
        return None

    def other_files(self) -> list[str]:
        """Return the names of files and folders, without hidden ones."""
        with writing(self.path):
            return sorted(each.name for each in self.path.iterdir() if not each.name.startswith("."))

    def begin(self, settings: Mapping[str, Any], names: Names) -> None:
        """Write the settings of an export and the names of its files, and make the folder for unfinished files.

        Raises
        ------
        OutputError
            If they cannot be written.
        """
        with writing(self.path / RECORD):
            remove(self.path / _UNFINISHED)
            (self.path / _UNFINISHED).mkdir()
        text = json.dumps({"settings": settings, "files": names.record()}, indent=1)
        self.write(RECORD, lambda file: _write_to_disk(file, text.encode()))

    def finish(self) -> None:
        """Remove the folder for unfinished files."""
        remove(self.path / _UNFINISHED)

    def clear(self, earlier: Names, names: Names) -> None:
        """Remove the files of an earlier export, and its folders if they are empty then. Other files stay.

        Parameters
        ----------
        earlier
            Names of its files.
        names
            Names of the files that will be written.

        Raises
        ------
        OutputError
            If another file has one of these names, or a file cannot be removed.
        """
        with writing(self.path):
            self._check_free(earlier, names)
            self.table.unlink(missing_ok=True)  # first: a table says that all files are complete
            for folder in earlier.folders:
                if not self._is_link(folder):
                    self._clear_folder(folder, earlier)

    def _check_free(self, earlier: Names, names: Names) -> None:
        for folder in names.folders:
            ours = () if self._is_link(folder) else earlier.names_in(folder)
            others = _written_in(self.path / folder).intersection(names.names_in(folder)).difference(ours)
            if others:
                raise OutputError(
                    f"{self.path}: {folder}{min(others)} is not a file of the earlier export, and this one would "
                    "replace it. Move it, or give another folder"
                )

    def _is_link(self, folder: str) -> bool:
        return bool(folder) and (self.path / folder).is_symlink()

    def _clear_folder(self, folder: str, earlier: Names) -> None:
        for name in _files_in(self.path / folder).intersection(earlier.names_in(folder)):
            (self.path / folder / name).unlink()
        if folder:
            with suppress(OSError):  # it has other files
                (self.path / folder).rmdir()

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


def _files_in(folder: Path) -> set[str]:
    if not folder.is_dir():
        return set()
    with os.scandir(folder) as entries:
        return {entry.name for entry in entries if not entry.is_dir(follow_symlinks=False)}


def _write_to_disk(file: IO[bytes], content: bytes) -> None:
    """Write a file that a power failure does not damage."""
    file.write(content)
    file.flush()
    os.fsync(file.fileno())
