"""Read a file behind a URL with the methods of a file on a disk."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple, Self

from google_crc32c import value as crc32c

from cellstamp.location import Location, file_system_of
from cellstamp.system import RawFile

if TYPE_CHECKING:
    from upath import UPath

_VERSION = ("ETag", "etag", "LastModified", "mtime", "md5Hash")
"""Attributes by which file systems tell versions of a file apart."""


class RemoteStatus(NamedTuple):
    """Size and version of a remote file, named as those of `os.stat_result`."""

    st_size: int
    st_mtime_ns: int
    st_ino: int


class RemoteFile:
    """A file behind a URL; see `cellstamp.system.RawFile`."""

    def __init__(self, location: UPath) -> None:
        self._files, self._path = file_system_of(location), location.path
        about = self._files.info(self._path)
        version = str([about.get(key) for key in _VERSION]).encode()
        self._status = RemoteStatus(int(about["size"]), 0, int(crc32c(version)))

    def status(self) -> RemoteStatus:
        """Return size and version of the file when it was opened."""
        return self._status

    def read_into(self, target: memoryview, start: int) -> int:
        """Read bytes from a position; return their number, 0 at the end of the file."""
        end = min(start + len(target), self._status.st_size)
        found = self._files.cat_file(self._path, start=start, end=end) if end > start else b""
        target[: len(found)] = found
        return len(found)

    def close(self) -> None:
        """Do nothing: each request is complete."""

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: Any) -> None:
        self.close()


def open_to_read(location: Location) -> RawFile | RemoteFile:
    """Open a file to read it."""
    return RawFile(location) if isinstance(location, Path) else RemoteFile(location)
