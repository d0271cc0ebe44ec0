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
from cellstamp.h5sc.layout import (
    FEATURES_FILE,
    FEATURES_STORE,
    FILE_NAME,
    IMAGES,
    MEASURED_IN_PART,
    STORE_NAME,
    URL_NAME,
)
from cellstamp.h5sc.remote_store import RemoteStore
from cellstamp.location import Location, check_protocol, is_remote, location_of, reachable
from cellstamp.remote_file import RemoteFile, RemoteStatus

ROOT = "zarr.json"
"""File with the metadata of a zarr store's root: it is written last."""
READING_ERRORS = (OSError, KeyError, ValueError, TypeError, RuntimeError)
"""Errors that h5py, zarr and anndata raise for damaged files; those of decompression are RuntimeError."""

_IMAGES_OF = {FEATURES_FILE: FILE_NAME, FEATURES_STORE: STORE_NAME}
_SHOWN = 60
"""Characters of a text in a message."""
_EXAMPLES = 3
"""Number of files in a message."""


@dataclass(frozen=True)
class Mark:
    """Size, time of modification and inode of a file: they show whether it was replaced or modified.

    Of a remote file, the inode is a number of its version.
    """

    n_bytes: int
    changed_ns: int
    inode: int

    @classmethod
    def of(cls, status: os.stat_result | RemoteStatus) -> Mark:
        """Return the mark of a file with this status."""
        return cls(status.st_size, status.st_mtime_ns, status.st_ino)


class OpenStore:
    """A zarr store with the interface of an open HDF5 file.

    Zarr opens the files of a store one by one. So tables may be those of another store that has replaced it meanwhile:
    `close` checks this.
    """

    def __init__(self, path: Location) -> None:
        self.filename = str(path)
        self.mark = mark_of(path / ROOT)
        self._remote = None if isinstance(path, Path) else RemoteStore(path)
        self._group = zarr.open_group(self._remote or self.filename, mode="r", zarr_format=3)

    def __getitem__(self, name: str) -> Any:
        element = self._group[name]
        self._fetch(element)
        return element

    def as_group(self) -> zarr.Group:
        """Return the store for a reader of all its elements."""
        self._fetch(self._group)
        return self._group

    def _fetch(self, element: Any) -> None:
        if self._remote is not None and isinstance(element, zarr.Group):
            self._remote.fetch(element)

    def __contains__(self, name: str) -> bool:
        return name in self._group

    def close(self) -> None:
        """Check that all of it was read from one store.

        Raises
        ------
        InputError
            If the store was replaced or removed since it was opened.
        """
        check_not_replaced(location_of(self.filename), self.mark)

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()


def open_h5sc(path: Location) -> Any:
    """Open a file or store for reading, and check that it has single-cell images. Stores may be behind a URL.

    Returns
    -------
    h5py.File or OpenStore
        Both have elements by name, are context managers, and can be closed.

    Raises
    ------
    InputError
        If it is missing, damaged, or something else.
    """
    with reachable(str(path)):
        file = _open(path)
        problem = _problem(file)
        has_features = problem is not None and "X" in file and f"obs/{MEASURED_IN_PART}" in file
    if problem is not None:
        file.close()
        raise InputError(_no_images_in(path) if has_features else f"{path} is not an .h5sc file: {problem}")
    return file


def _no_images_in(features: Location) -> str:
    usual = _IMAGES_OF.get(features.name)
    images = features.with_name(usual or features.name.removesuffix(features.suffix).removesuffix(".features"))
    remedy = f"Give the file or store that it belongs to: {images}"
    if usual and not is_finished(images):
        remedy = "It was made with images = False: extract with images = True"
    return f"{features} is a table of features, and has no single-cell images. {remedy}"


def read_url(path: Path) -> str:
    """Read the URL of a store from a text file, as extractions with ``output_url`` write it.

    Raises
    ------
    InputError
        If it has none.
    """
    text = path.read_text(encoding="utf-8", errors="replace").strip()
    if not is_remote(text) or len(text.split()) != 1:
        raise InputError(
            f"{path}: {_short(text)} is not a URL: the file must have the URL of a zarr store, like "
            f"s3://bucket/run/data/{STORE_NAME}. Write it into the file, or extract again with the key output_url"
        )
    return text


def _short(text: str) -> str:
    return repr(text if len(text) <= _SHOWN else f"{text[:_SHOWN]}...")


def _open(path: Location) -> Any:
    if is_remote(path):
        check_protocol(str(path))
        if (path / ROOT).exists():  # some servers have no folders
            return _read_store(path)
    if not path.exists():
        raise InputError(f"there is no file {path}")
    if path.is_dir():
        return _open_store(path)
    if not isinstance(path, Path):
        raise InputError(f"{path} is a file behind a URL, of which only zarr stores can be read: download it")
    return _open_file(path)


def _open_file(path: Path) -> h5py.File:
    if path.suffix == Path(URL_NAME).suffix:
        raise InputError(f"{path} is a text file with the URL of a store. Give the URL: {read_url(path)}")
    try:
        return h5py.File(str(path), "r")
    except OSError as error:
        message = f"{path} is not an HDF5 file, or it is damaged: {error}"
        raise InputError(message) from error


def _open_store(path: Location) -> OpenStore:
    if not (path / ROOT).exists():
        raise InputError(_no_store_in(path))
    return _read_store(path)


def _read_store(path: Location) -> OpenStore:
    try:
        return OpenStore(path)
    except (OSError, ValueError, KeyError) as error:
        message = f"{path} is not a zarr store, or it is damaged: {error}"
        raise InputError(message) from error


def _no_store_in(path: Location) -> str:
    if (path / ".zgroup").exists():
        return (
            f"{path} is a zarr store in format 2: single-cell images must be in format 3. Convert it in Python: import "
            f"anndata, zarr; new = zarr.open_group({str(path.with_name(f'{path.stem}_3.zarr'))!r}, mode='w-', "
            f"zarr_format=3); anndata.io.write_elem(new, '/', anndata.io.read_zarr({str(path)!r}))"
        )
    message = f"{path} is a folder and not a zarr store of single-cell images: it has no {ROOT}"
    found = _results_below(path) if isinstance(path, Path) else []
    return f"{message}. Give a file or store in it: {', '.join(map(str, found[:_EXAMPLES]))}" if found else message


def _results_below(folder: Path) -> list[Path]:
    """Return the files and stores in a folder, in the extractions of a project's folder, or of a step's folder."""
    return [
        path
        for below in ("", "[!.]*/", "extraction/[!.]*/")
        for name in (FILE_NAME, STORE_NAME)
        for path in sorted(folder.glob(f"{below}{name}"))
    ]


def is_finished(path: Location) -> bool:
    """Return whether a finished file or store is at a location."""
    with reachable(str(path)):
        return path.exists() if isinstance(path, Path) else marked_file(path).exists()


def bytes_of(path: Location) -> int:
    """Return the bytes of a file, or of all files of a store."""
    if not isinstance(path, Path):
        return sum(int(about["size"]) for about in path.fs.find(path.path, detail=True).values())
    files = [path] if path.is_file() else [each for each in path.rglob("*") if each.is_file()]
    return sum(each.stat().st_size for each in files)


def marked_file(path: Location) -> Location:
    """Return the file that shows whether a file or store was replaced: itself, or the metadata of the store's root."""
    return path / ROOT if not isinstance(path, Path) or path.is_dir() else path


def mark_of(file: Location) -> Mark:
    """Return the mark of a file."""
    return Mark.of(file.stat() if isinstance(file, Path) else RemoteFile(file).status())


def check_not_replaced(store: Location, mark: Mark) -> None:
    """Check that a store is the one that was opened, by the mark of its root.

    Raises
    ------
    InputError
        If it was replaced or removed.
    """
    try:
        is_same = mark_of(store / ROOT) == mark
    except OSError:
        is_same = False
    if not is_same:
        raise InputError(f"{store} was replaced or removed after it was opened: open it again")


def _problem(file: Any) -> str | None:
    """Return why a file has no single-cell images."""
    missing = [name for name in (f"obsm/{IMAGES}", "obs", "var", "uns") if name not in file]
    if missing:
        return f"it lacks {', '.join(missing)}"
    images = file[f"obsm/{IMAGES}"]
    if not isinstance(images, h5py.Dataset | zarr.Array) or images.ndim != 4:
        return f"obsm/{IMAGES} must be an array with four axes"
    return None
