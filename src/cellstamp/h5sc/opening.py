"""Open files and stores of single-cell images, of cellstamp and scportrait."""

from __future__ import annotations

import os
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType
from typing import Any, Self

import h5py
import zarr

from cellstamp.errors import InputError
from cellstamp.h5sc.layout import IMAGES

ROOT = "zarr.json"
"""File with the metadata of a zarr store's root: it is written last."""


@dataclass(frozen=True)
class Mark:
    """Size, time of modification and inode of a file: they show whether it was replaced or modified."""

    n_bytes: int
    changed_ns: int
    inode: int

    @classmethod
    def of(cls, status: os.stat_result) -> Mark:
        """Return the mark of a file with this status."""
        return cls(status.st_size, status.st_mtime_ns, status.st_ino)


class OpenStore:
    """A zarr store with the interface of an open HDF5 file.

    Zarr opens the files of a store one by one. So tables may be those of another store that has replaced it meanwhile:
    `close` checks this.
    """

    def __init__(self, path: Path) -> None:
        self.filename = str(path)
        self.mark = Mark.of((path / ROOT).stat())
        self._group = zarr.open_group(path, mode="r")

    def __getitem__(self, name: str) -> Any:
        return self._group[name]

    def __contains__(self, name: str) -> bool:
        return name in self._group

    def close(self) -> None:
        """Check that all of it was read from one store.

        Raises
        ------
        InputError
            If the store was replaced or removed since it was opened.
        """
        check_not_replaced(Path(self.filename), self.mark)

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()


def open_h5sc(path: Path) -> Any:
    """Open a file or store for reading, and check that it has single-cell images.

    Returns
    -------
    h5py.File or OpenStore
        Both have elements by name, are context managers, and can be closed.

    Raises
    ------
    InputError
        If it is missing, damaged, or something else.
    """
    if not path.exists():
        message = f"there is no file {path}"
        raise InputError(message)
    file = _open_store(path) if path.is_dir() else _open_file(path)
    problem = _problem(file)
    if problem is not None:
        file.close()
        message = f"{path} is not an .h5sc file: {problem}"
        raise InputError(message)
    return file


def _open_file(path: Path) -> h5py.File:
    try:
        return h5py.File(path, "r")
    except OSError as error:
        message = f"{path} is not an HDF5 file, or it is damaged: {error}"
        raise InputError(message) from error


def _open_store(path: Path) -> OpenStore:
    if not (path / ROOT).is_file():
        message = f"{path} is a folder and not a zarr store of single-cell images: it has no {ROOT}"
        raise InputError(message)
    try:
        return OpenStore(path)
    except (OSError, ValueError, KeyError) as error:
        message = f"{path} is not a zarr store, or it is damaged: {error}"
        raise InputError(message) from error


def bytes_of(path: Path) -> int:
    """Return the bytes of a file, or of all files of a store."""
    files = [path] if path.is_file() else [each for each in path.rglob("*") if each.is_file()]
    return sum(each.stat().st_size for each in files)


def marked_file(path: Path) -> Path:
    """Return the file that shows whether a file or store was replaced: itself, or the metadata of the store's root."""
    return path / ROOT if path.is_dir() else path


def check_not_replaced(store: Path, mark: Mark) -> None:
    """Check that a store is the one that was opened, by the mark of its root.

    Raises
    ------
    InputError
        If it was replaced or removed.
    """
    try:
        is_same = Mark.of((store / ROOT).stat()) == mark
    except OSError:
        is_same = False
    if not is_same:
        raise InputError(f"{store} was replaced or removed after it was opened: open it again")


def _problem(file: Any) -> str | None:
    """Return why a file has no single-cell images."""
    missing = [name for name in (f"obsm/{IMAGES}", "obs", "var", "uns") if name not in file]
    if missing:
        return f"it lacks {', '.join(missing)}"
    images = file["obsm"][IMAGES]
    if not isinstance(images, h5py.Dataset | zarr.Array) or images.ndim != 4:
        return f"obsm/{IMAGES} must be an array with four axes"
    return None
