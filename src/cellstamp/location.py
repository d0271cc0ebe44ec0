"""Locate stores and results: paths, or URLs that fsspec opens."""

from __future__ import annotations

import errno
import os
import sys
import zipfile
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from importlib.metadata import version
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeAlias, TypeGuard

from cellstamp.errors import CellstampError, ConfigError, InputError

if TYPE_CHECKING:
    from upath import UPath

Location: TypeAlias = "Path | UPath"
"""Path of a file or folder, or a universal path: a URL with the methods of a path."""
AnyPath: TypeAlias = "str | os.PathLike[str] | UPath"
"""What users give for a path or URL."""

# Entries of a store that change when an element is added, besides the folder of its kind.
_REWRITTEN = (".", "..", "points", "zarr.json", ".zmetadata")
FSSPEC_FOR_ZIP = (2026, 9)
"""Before this release, zip files lose some of the reads that zarr starts at the same time."""
UNLISTED = ("http://", "https://")
"""Web servers: many list no folders, and their listings lack sizes and times."""
_METADATA = (".zarray", ".zattrs", ".zgroup", ".zmetadata", "zarr.json")


class UnreachableError(InputError):
    """A remote store that cannot be read."""


def path_of(handler: Any) -> str | None:
    """Return the path or URL of a file handler's store; None if it is neither a path nor has an ``sdata_path``.

    A zip file with a zarr group becomes the URL of that group.

    Raises
    ------
    InputError
        If it is a universal path with options, which do not reach worker processes.
    """
    path = getattr(handler, "sdata_path", handler)
    if isinstance(path, str | os.PathLike):
        return in_zip(path) or os.fspath(path)
    if not (hasattr(path, "protocol") and hasattr(path, "storage_options")):  # the attributes of universal paths
        return None
    if path.storage_options:
        options = ", ".join(path.storage_options)
        message = (
            f"{path} has the options {options}, which do not reach worker processes. Write them into fsspec's "
            "configuration (a JSON file in ~/.config/fsspec), and give the path without them"
        )
        raise InputError(message)
    return str(path)


def is_remote(store: AnyPath) -> bool:
    """Return whether fsspec opens a store, by the same rule as zarr."""
    return "::" in str(store) or "://" in str(store)


def is_path(value: object) -> TypeGuard[AnyPath]:
    """Return whether a value is a path, a URL, or a universal path."""
    return isinstance(value, str | os.PathLike) or (hasattr(value, "fs") and hasattr(value, "path"))


def check_valid(path: Path, key: str) -> None:
    """Check that the system allows the name of a file or folder, which may be missing.

    Parameters
    ----------
    key
        Name of the argument, for the message.

    Raises
    ------
    ConfigError
        If the name is too long, or has a character that is not allowed.
    """
    try:
        os.lstat(path)
    except (OSError, ValueError) as error:
        if isinstance(error, ValueError) or error.errno == errno.ENAMETOOLONG:
            reason = getattr(error, "strerror", None) or error
            raise ConfigError(f"{key} = {str(path)!r}: is not a valid path: {reason}") from error


def location_of(path: AnyPath) -> Location:
    """Return the location of a path or URL."""
    if is_remote(path) or not isinstance(path, str | os.PathLike):
        from upath import UPath

        # a listing from before a run would lack its files
        return UPath(str(path), use_listings_cache=False)
    return Path(path)


def file_system_of(location: UPath) -> Any:
    """Return the file system of a URL for this process: after a fork, that of a location of the parent fails."""
    return location_of(str(location)).fs  # type: ignore[union-attr]  # a URL


def _forget_event_loop() -> None:
    """Make fsspec start its thread in a fork, which lacks that of the parent: before 2025.3, it waits forever."""
    if (asynchronous := sys.modules.get("fsspec.asyn")) is not None:
        asynchronous.reset_lock()


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_forget_event_loop)


def in_zip(path: str | os.PathLike[str]) -> str | None:
    """Return the URL of the zarr group in a zip file, at its top or in its only folder; None for other files."""
    if is_remote(path) or not Path(path).is_file() or not zipfile.is_zipfile(path):
        return None
    with zipfile.ZipFile(path) as file:
        names = file.namelist()
    if not any(Path(name).name in _METADATA for name in names):  # other formats are zip files too, like numpy's
        return None
    tops = {name.split("/")[0] for name in names}
    inner = tops.pop() if len(tops) == 1 else ""
    return f"zip://{inner}::{Path(path).absolute()}"


def below(where: Path | str, path: str) -> Path | str:
    """Return a path below a folder or URL, which may point into a zip file (``zip://FOLDER::FILE``)."""
    if isinstance(where, Path):
        return where / path
    here, chained, container = where.partition("::")
    slash = "" if here.endswith("/") or not path else "/"
    return f"{here}{slash}{path}{chained}{container}"


def check_protocol(store: str) -> None:
    """Raise fsspec's error if it cannot open a kind of URL; `reachable` reports it."""
    import fsspec

    fsspec.core.url_to_fs(store)


def is_writable(store: str) -> bool:
    """Return whether an element can be added to a store: a folder whose affected entries are writable."""
    if is_remote(store):
        return False
    concerned = (Path(store) / part for part in _REWRITTEN)
    return all(_is_writable(path) for path in concerned if path.exists())


def linked_part(store: str | os.PathLike[str], kinds: Iterable[str] = ("points",)) -> Path | None:
    """Return the first entry of a store that is a symbolic link, so that a write would change other data; or None.

    Parameters
    ----------
    store
        Folder of the store.
    kinds
        Groups of the store that elements are added to or removed from.
    """
    concerned = (Path(store) / part for part in (".", *_METADATA, *kinds))
    return next((path for path in concerned if path.is_symlink()), None)


def _is_writable(path: Path) -> bool:
    """Return whether a file or folder may be changed; read-only ones are left alone by root too."""
    return os.access(path, os.W_OK) and bool(path.stat().st_mode & 0o222)


def check_zip(store: str, fsspec: str) -> None:
    """Raise an InputError if a release of fsspec cannot read zip files reliably."""
    if tuple(map(int, fsspec.split(".")[:2])) < FSSPEC_FOR_ZIP:
        needed = ".".join(map(str, FSSPEC_FOR_ZIP))
        message = (
            f"{store} cannot be read with fsspec {fsspec}: zip files need fsspec {needed} or newer. Run "
            f"`pip install 'fsspec>={needed}'`, or unpack the file"
        )
        raise InputError(message)


@contextmanager
def reachable(store: str) -> Iterator[None]:
    """Add the store to errors of reading a remote one; every file system has other errors."""
    if store.startswith("zip://"):
        check_zip(store, version("fsspec"))
    try:
        yield
    except CellstampError:
        raise
    except ImportError as error:
        if not is_remote(store):
            raise
        message = f"{store} cannot be opened: a required package is not installed: {error}"
        raise UnreachableError(message) from error
    except Exception as error:
        if not is_remote(store):
            raise
        message = (
            f"{store} cannot be read: {type(error).__name__}: {error}. Check the address, and whether the server "
            "is running and lets you read"
        )
        raise UnreachableError(message) from error
