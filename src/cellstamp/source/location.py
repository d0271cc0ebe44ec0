"""Where a store is: a folder, which may be written to, or what fsspec opens, which never is."""

from __future__ import annotations

import os
import zipfile
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from cellstamp.errors import CellstampError, InputError

# What changes in a store when an element comes into it, beside the folder of its kind.
_REWRITTEN = (".", "..", "points", "zarr.json", ".zmetadata")
_METADATA = (".zarray", ".zattrs", ".zgroup", ".zmetadata", "zarr.json")


class UnreachableError(InputError):
    """A remote store that cannot be read."""


def path_of(handler: Any) -> str | None:
    """Path or URL of the store that a file handler stands for; None when it is no path and knows none (`sdata_path`).

    A zip file with zarr in it becomes the URL of what is in it.

    Raises
    ------
    InputError
        When it is a universal path with options, which worker processes would not know of.
    """
    path = getattr(handler, "sdata_path", handler)
    if isinstance(path, str | os.PathLike):
        return in_zip(path) or os.fspath(path)
    if not (hasattr(path, "protocol") and hasattr(path, "storage_options")):  # what universal paths have
        return None
    if path.storage_options:
        options = ", ".join(path.storage_options)
        message = (
            f"{path} has the options {options}, which do not reach worker processes: put them into fsspec's "
            "configuration (a JSON file in ~/.config/fsspec), and give the path without them"
        )
        raise InputError(message)
    return str(path)


def is_remote(store: str | os.PathLike[str]) -> bool:
    """Whether a store is opened by fsspec: the same rule as zarr's."""
    return "::" in str(store) or "://" in str(store)


def in_zip(path: str | os.PathLike[str]) -> str | None:
    """URL of the zarr group in a zip file, at its top or in the only folder there; None if it is no such file."""
    if is_remote(path) or not Path(path).is_file() or not zipfile.is_zipfile(path):
        return None
    with zipfile.ZipFile(path) as file:
        names = file.namelist()
    if not any(Path(name).name in _METADATA for name in names):  # others are zip files, too: those of numpy, for one
        return None
    tops = {name.split("/")[0] for name in names}
    inner = tops.pop() if len(tops) == 1 else ""
    return f"zip://{inner}::{Path(path).absolute()}"


def below(where: Path | str, path: str) -> Path | str:
    """A path below a folder or below a URL, which may be one inside of a zip file (``zip://FOLDER::FILE``)."""
    if isinstance(where, Path):
        return where / path
    here, chained, container = where.partition("::")
    slash = "" if here.endswith("/") or not path else "/"
    return f"{here}{slash}{path}{chained}{container}"


def check_protocol(store: str) -> None:
    """Have fsspec say now whether it knows how to open a URL; its errors are told by `reachable`."""
    import fsspec

    fsspec.core.url_to_fs(store)


def is_writable(store: str) -> bool:
    """Whether an element can be added to a store: a folder that we may change, all of it that has to be."""
    if is_remote(store):
        return False
    concerned = (Path(store) / part for part in _REWRITTEN)
    return all(_is_open_to_us(path) for path in concerned if path.exists())


def linked_part(store: str | os.PathLike[str], kinds: Iterable[str] = ("points",)) -> Path | None:
    """What of a store is a link to elsewhere, so that a change would be one of something else; None if nothing is.

    Parameters
    ----------
    store
        Folder of the store.
    kinds
        Groups in it that elements come into, or leave.
    """
    concerned = (Path(store) / part for part in (".", *_METADATA, *kinds))
    return next((path for path in concerned if path.is_symlink()), None)


def _is_open_to_us(path: Path) -> bool:
    """Whether a file or folder can be changed; what nobody may change is left alone by root, too."""
    return os.access(path, os.W_OK) and bool(path.stat().st_mode & 0o222)


@contextmanager
def reachable(store: str) -> Iterator[None]:
    """Say which remote store could not be read: there are as many kinds of errors as there are file systems."""
    try:
        yield
    except CellstampError:
        raise
    except ImportError as error:
        if not is_remote(store):
            raise
        message = f"{store} cannot be opened: a package that it needs is not installed: {error}"
        raise UnreachableError(message) from error
    except Exception as error:
        if not is_remote(store):
            raise
        message = (
            f"{store} cannot be read: {type(error).__name__}: {error}. Check the address, and whether the server "
            "answers and lets you read"
        )
        raise UnreachableError(message) from error
