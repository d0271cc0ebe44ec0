"""Read the tables of a store behind a URL with few requests in a row: anndata reads one array after the other."""

from __future__ import annotations

from collections.abc import Iterator
from itertools import product
from typing import TYPE_CHECKING, Any

import zarr
from zarr.storage import FsspecStore, WrapperStore

from cellstamp.location import UNLISTED, file_system_of

if TYPE_CHECKING:
    from upath import UPath
    from zarr.abc.store import ByteRequest
    from zarr.core.buffer import Buffer, BufferPrototype

_SMALL_BYTES = 2**20
"""Arrays up to this size are requested together."""
_PATTERNS = frozenset("*?[")
"""Characters that fsspec takes for a pattern."""


class RemoteStore(WrapperStore[FsspecStore]):
    """A store behind a URL that can request many small arrays at the same time, and keeps them.

    Parameters
    ----------
    location
        URL of the store.
    """

    def __init__(self, location: UPath) -> None:
        super().__init__(FsspecStore.from_url(str(location), read_only=True))
        self._location = location
        self._fetched: dict[str, bytes | None] = {}

    async def get(self, key: str, prototype: BufferPrototype, byte_range: ByteRequest | None = None) -> Buffer | None:
        """Return the content of a file, or None if it is missing."""
        if byte_range is not None or key not in self._fetched:
            return await super().get(key, prototype, byte_range)
        content = self._fetched[key]
        return None if content is None else prototype.buffer.from_bytes(content)

    @property
    def lists_files(self) -> bool:
        """Whether the server lists files, as far as the protocol shows it."""
        return not str(self._location).startswith(UNLISTED)

    def count_missing(self, array: zarr.Array[Any]) -> int:
        """Return how many chunks of an array are missing; requests a byte of each."""
        places = product(*map(range, array.cdata_shape))
        paths = [f"{self._location.path}/{_file_of(array, place)}" for place in places]
        found = file_system_of(self._location).cat_ranges(paths, 0, 1, on_error="return")
        return sum(isinstance(each, FileNotFoundError) for each in found)

    def fetch(self, group: zarr.Group) -> None:
        """Request the small arrays of a group whose metadata are known; other ones are read when they are needed."""
        files = {f"{self._location.path}/{key}": key for key in _small_files(group) if key not in self._fetched}
        paths = [path for path in files if not _PATTERNS & set(path)]
        found = file_system_of(self._location).cat(paths, on_error="return") if paths else {}
        for path, content in found.items():
            if isinstance(content, bytes):
                self._fetched[files[path]] = content
            elif isinstance(content, FileNotFoundError):  # of an array that is only its fill value
                self._fetched[files[path]] = None


def _small_files(group: zarr.Group) -> Iterator[str]:
    """List the files of small arrays in one piece; none without consolidated metadata, since this takes requests."""
    if group.metadata.consolidated_metadata is None:
        return
    for _, element in group.members(max_depth=None):
        if isinstance(element, zarr.Array) and element.nbytes <= _SMALL_BYTES and element.nchunks == 1:
            yield _file_of(element, (0,) * element.ndim)


def _file_of(array: zarr.Array[Any], place: tuple[int, ...]) -> str:
    return f"{array.path}/{array.metadata.encode_chunk_key(place)}"
