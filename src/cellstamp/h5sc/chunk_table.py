"""Read the positions of all chunks of an image array from HDF5's own index.

HDF5 lists chunks only through a callback for each one, which takes a second for a million chunks. The index that files
of cellstamp have, a "fixed array", is one block of the file with 8 to 20 bytes for each chunk. This module reads that
block, as the HDF5 File Format Specification (version 3.0, sections IV.A.2.i and VII.C) describes it. A table of
positions stored by the writer would be wrong once another program moves a chunk; this index is what HDF5 itself reads.

Anything unexpected means None: the caller then asks HDF5.
"""

from __future__ import annotations

import struct
from collections.abc import Iterator
from dataclasses import dataclass
from typing import NamedTuple

import h5py
import numpy as np
from numpy.typing import NDArray

from cellstamp.system import RawFile

_LAYOUT, _CONTINUATION = 0x08, 0x10
"""Types of messages in an object header."""
_CHUNKED, _FIXED_ARRAY = 2, 3
_UNDEFINED = 2**64 - 1


class ChunkTable(NamedTuple):
    """Positions of chunks, in C order of the chunks in the array.

    Attributes
    ----------
    offsets
        int64 (n_chunks,): first byte of each chunk; 0 for one that is not stored.
    sizes
        int64 (n_chunks,): bytes of each chunk; 0 for one that is not stored.
    unfiltered
        bool (n_chunks,): whether the chunk did not go through the filter.
    """

    offsets: NDArray[np.int64]
    sizes: NDArray[np.int64]
    unfiltered: NDArray[np.bool_]


@dataclass(frozen=True)
class _Index:
    """Header of a fixed array."""

    n_chunks: int
    entry_bytes: int
    per_page: int
    block: int


def read_chunk_table(file: h5py.File, images: h5py.Dataset, raw: RawFile) -> ChunkTable | None:
    """Read the positions of all chunks of a dataset. None: its index has another form.

    Parameters
    ----------
    file, images
        A file opened for reading, and its dataset.
    raw
        The same file, opened once more.
    """
    # a writer in this process may have changes that are not in the file yet
    if file.mode != "r" or file.userblock_size or file.id.get_create_plist().get_sizes() != (8, 8):
        return None
    try:
        index = _read_index(images, raw)
        table = None if index is None else _read_table(images, raw, index)
        # HDF5 sums up the same entries, and checks their checksums meanwhile
        is_right = table is not None and int(table.sizes.sum()) == images.id.get_storage_size()
    except (struct.error, ValueError, IndexError, OSError, RuntimeError):
        return None
    return table if is_right else None


def _read_index(images: h5py.Dataset, raw: RawFile) -> _Index | None:
    """Read the header of the index, if it is a fixed array with an entry for each chunk."""
    messages = _messages(raw, h5py.h5o.get_info(images.id).addr)
    place = next((place for place in map(_place_of_index, messages) if place is not None), None)
    if place is None:
        return None
    signature, version, is_filtered, entry_bytes, page_bits, n_chunks, block = struct.unpack(
        "<4sBBBBQQ", raw.read(24, place)
    )
    n_expected = np.prod([-(-side // chunk) for side, chunk in zip(images.shape, images.chunks, strict=True)])
    expected = (b"FAHD", 0, int(bool(images.id.get_create_plist().get_nfilters())), n_expected)
    if (signature, version, is_filtered, n_chunks) != expected or block == _UNDEFINED:
        return None
    return _Index(n_chunks, entry_bytes, 1 << page_bits, block)


def _messages(raw: RawFile, address: int) -> Iterator[tuple[int, bytes]]:
    """Yield type and content of the messages in an object header of version 2."""
    prefix = raw.read(6, address)
    if prefix[:5] != b"OHDR\x02":
        return
    flags = prefix[5]
    at = address + 6 + (16 if flags & 0x20 else 0) + (4 if flags & 0x10 else 0)
    width = 1 << (flags & 3)
    blocks = [(at + width, int.from_bytes(raw.read(width, at), "little"))]
    while blocks:
        start, n_bytes = blocks.pop()
        content, place = raw.read(n_bytes, start), 0
        while place + 4 <= len(content):
            kind, size = content[place], int.from_bytes(content[place + 1 : place + 3], "little")
            place += 6 if flags & 4 else 4
            message = content[place : place + size]
            place += size
            if kind == _CONTINUATION:
                where, length = struct.unpack("<QQ", message)
                blocks.append((where + 4, length - 8))  # without its signature and checksum
            yield kind, message


def _place_of_index(message: tuple[int, bytes]) -> int | None:
    """Return the address of the fixed array that a layout message of version 4 names."""
    kind, content = message
    if kind != _LAYOUT or content[:2] != bytes((4, _CHUNKED)):
        return None
    n_dimensions, width = content[3], content[4]
    at = 5 + n_dimensions * width
    if content[at] != _FIXED_ARRAY:
        return None
    (address,) = struct.unpack_from("<Q", content, at + 2)
    return None if address == _UNDEFINED else int(address)


def _read_table(images: h5py.Dataset, raw: RawFile, index: _Index) -> ChunkTable | None:
    """Read the data block of a fixed array."""
    if raw.read(5, index.block) != b"FADB\x00":
        return None
    at, n_pages = index.block + 14, -(-index.n_chunks // index.per_page)
    if index.n_chunks <= index.per_page:
        entries = np.frombuffer(raw.read(index.n_chunks * index.entry_bytes, at), np.uint8)
        return _parsed(entries.reshape(index.n_chunks, -1), images)
    n_bitmap = -(-n_pages // 8)
    is_used = np.unpackbits(np.frombuffer(raw.read(n_bitmap, at), np.uint8))[:n_pages].astype(np.bool_)
    page_bytes = index.per_page * index.entry_bytes + 4
    n_bytes = index.n_chunks * index.entry_bytes + 4 * n_pages
    content = np.frombuffer(raw.read(n_bytes, at + n_bitmap + 4), np.uint8)
    pages = np.zeros(n_pages * page_bytes, np.uint8)
    pages[: content.size] = content
    entries = pages.reshape(n_pages, page_bytes)[:, :-4].reshape(-1, index.entry_bytes)
    table = _parsed(entries[: index.n_chunks], images)
    return _without(table, np.repeat(~is_used, index.per_page)[: index.n_chunks])


def _parsed(entries: NDArray[np.uint8], images: h5py.Dataset) -> ChunkTable:
    """Convert entries: an address; and with a filter, the size of the chunk and a mask of left out filters."""
    offsets = np.ascontiguousarray(entries[:, :8]).view("<i8").ravel()
    if not images.id.get_create_plist().get_nfilters():
        sizes = np.full(len(entries), int(np.prod(images.chunks)) * images.dtype.itemsize)
        return _without(ChunkTable(offsets, sizes, np.ones(len(entries), np.bool_)), offsets < 0)
    wide = np.zeros((len(entries), 8), np.uint8)
    wide[:, : entries.shape[1] - 12] = entries[:, 8:-4]
    masks = np.ascontiguousarray(entries[:, -4:]).view("<u4").ravel()
    return _without(ChunkTable(offsets, wide.view("<i8").ravel(), masks != 0), offsets < 0)


def _without(table: ChunkTable, missing: NDArray[np.bool_]) -> ChunkTable:
    return ChunkTable(np.where(missing, 0, table.offsets), np.where(missing, 0, table.sizes), table.unfiltered)
