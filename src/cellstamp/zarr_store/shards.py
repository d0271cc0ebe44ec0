"""Shards of a zarr array: files with the chunks of many cells, and an index at the end.

Source: zarr's codec "sharding_indexed", version 1.0. The index has the first byte and the number of bytes of each
chunk, little-endian uint64, and then their CRC-32C. Chunks may be in any order. Both numbers of a missing chunk are
2**64 - 1.
"""

from __future__ import annotations

from collections.abc import Iterable
from contextlib import suppress
from pathlib import Path
from typing import TYPE_CHECKING, TypeVar
from uuid import uuid4

import numpy as np
from google_crc32c import value as crc32c
from numpy.typing import NDArray

from cellstamp.errors import writing
from cellstamp.system import RawFile, begin_writeback, replace_file

if TYPE_CHECKING:
    from upath import UPath

P = TypeVar("P", Path, "UPath", "Path | UPath")

_MISSING = np.uint64(2**64 - 1)
_UNFINISHED = ".partial"
_CHECKSUM = 4
"""Bytes of the checksum."""


def images_path(store: P) -> P:
    """Return the folder of the array of single-cell images."""
    return store / "obsm" / "single_cell_images"


def shard_path(store: P, number: int) -> P:
    """Return the file of a shard of single-cell images."""
    return images_path(store) / "c" / str(number) / "0" / "0" / "0"


def index_of(offsets: NDArray[np.int64], sizes: NDArray[np.int64]) -> bytes:
    """Return the index of a shard.

    Parameters
    ----------
    offsets, sizes
        int64 (n_chunks,): first byte and number of bytes of each chunk; a negative offset: a missing chunk.
    """
    table = np.stack([offsets, sizes], axis=1).astype("<u8")
    table[offsets < 0] = _MISSING
    numbers = table.tobytes()
    return numbers + _checksum(numbers)


def _checksum(numbers: bytes) -> bytes:
    return int(crc32c(numbers)).to_bytes(_CHECKSUM, "little")


def write_shard(path: Path, parts: Iterable[bytes | memoryview]) -> int:
    """Write a file, which is renamed when complete; return its bytes.

    Raises
    ------
    OutputError
        If it cannot be written.
    """
    # a worker that was taken for lost may still write the same shard
    aside = path.with_name(f".{path.name}.{uuid4().hex}{_UNFINISHED}")
    with writing(path):
        path.parent.mkdir(parents=True, exist_ok=True)
        file = aside.open("wb")
    try:
        try:
            for part in parts:  # errors of those who make them are theirs
                with writing(path):
                    file.write(part)
            with writing(path):
                file.flush()
                begin_writeback(file.fileno())
            n_bytes = file.tell()
        finally:
            with writing(path):
                file.close()  # writes the rest
        with writing(path):
            replace_file(aside, path)
    finally:
        with suppress(OSError):
            aside.unlink(missing_ok=True)
    return n_bytes


def remove_unfinished(store: Path) -> None:
    """Remove what killed workers have left of shards."""
    for path in images_path(store).rglob(f".*{_UNFINISHED}"):
        path.unlink(missing_ok=True)


def read_index(path: Path, n_chunks: int) -> tuple[NDArray[np.int64], NDArray[np.int64]] | None:
    """Read the index of a shard.

    Returns
    -------
    offsets, sizes : ndarray
        int64 (n_chunks,), see `index_of`; the size of a missing chunk is 0. None: the file is missing or damaged.
    """
    try:
        with RawFile(path) as file:
            n_bytes = file.status().st_size
            found = file.read(index_bytes(n_chunks), max(n_bytes - index_bytes(n_chunks), 0))
    except OSError:
        return None
    return parse_index(found, n_bytes, n_chunks)


def index_bytes(n_chunks: int) -> int:
    """Return the bytes of the index of a shard."""
    return 16 * n_chunks + _CHECKSUM


def parse_index(found: bytes, n_bytes: int, n_chunks: int) -> tuple[NDArray[np.int64], NDArray[np.int64]] | None:
    """Return the content of an index, see `read_index`, that was read from the end of a shard of ``n_bytes``."""
    numbers, checksum = found[:-_CHECKSUM], found[-_CHECKSUM:]
    if len(numbers) != 16 * n_chunks or _checksum(numbers) != checksum:
        return None
    table = np.frombuffer(numbers, "<u8").reshape(n_chunks, 2)
    is_missing = table[:, 1] == _MISSING
    offsets, sizes = table.astype(np.int64).T
    sizes = np.where(is_missing, 0, sizes)
    is_inside = is_missing | ((offsets >= 0) & (sizes >= 0) & (offsets + sizes <= n_bytes))
    return (np.where(is_missing, -1, offsets), sizes) if is_inside.all() else None
