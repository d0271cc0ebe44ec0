"""The journal of a growing `.h5sc` file: which cells are stored, and at which bytes, to resume an interrupted run.

An HDF5 file that was not closed is invalid: its index was in memory. Its images are on disk, and the journal records
where. An entry is written after its images are on disk, so it is true even after a power failure. It has a checksum of
its images.

The journal has one line for each entry: a CRC-32 checksum of the line (hexadecimal), and JSON. The first line says
which inputs and settings the file is made from, and how many planes its chunks hold. An entry with features has their
number of bytes and their CRC-32 in its line, and these bytes after it.
"""

from __future__ import annotations

import json
import os
from collections import deque
from collections.abc import Iterator, Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Self

import numpy as np
from numpy.typing import NDArray

from cellstamp.checksums import checksum
from cellstamp.encoded_cells import EncodedCells
from cellstamp.system import RawFile, sync

_CLOSED = {"closed": True}


@dataclass(frozen=True)
class Entry:
    """Some cells whose images are in the file.

    Attributes
    ----------
    rows
        Rows of the cells.
    sizes
        Bytes of each chunk of each cell, in C order.
    extents
        First byte and number of bytes of each stretch of the file that holds the chunks, in their order.
    checksum
        CRC-32 of all these bytes.
    n_empty
        For each mask, number of these cells without a pixel of it.
    on_edge
        Rows of the cells whose cell mask touches the edge of the crop.
    features
        Features of the cells, see `as_bytes`; None: not measured.
    """

    rows: list[int]
    sizes: list[int]
    extents: list[tuple[int, int]]
    checksum: int
    n_empty: list[int]
    on_edge: list[int]
    features: bytes | None = None

    @classmethod
    def of(cls, cells: EncodedCells, extents: list[tuple[int, int]]) -> Self:
        """Return the entry of cells that were written to these stretches of the file."""
        sizes, n_empty, on_edge = cells.sizes.ravel().tolist(), cells.n_empty.tolist(), cells.on_edge.tolist()
        features = as_bytes(cells.features)
        return cls(cells.rows.tolist(), sizes, extents, cells.checksum, n_empty, on_edge, features)

    def read(self, file: RawFile) -> EncodedCells | None:
        """Read the cells from a file. None: the bytes do not match the checksum."""
        found = b"".join(file.read(n_bytes, start) for start, n_bytes in self.extents)
        payload = np.frombuffer(found, np.uint8)
        if payload.size != sum(self.sizes) or checksum(payload) != self.checksum:
            return None
        rows, on_edge, n_empty = np.array(self.rows, np.int32), np.array(self.on_edge, np.int32), np.array(self.n_empty)
        sizes, features = np.array(self.sizes).reshape(rows.size, -1), from_bytes(self.features, rows.size)
        return EncodedCells(rows, sizes, payload, self.checksum, n_empty, on_edge, features=features)


@dataclass(frozen=True)
class ShardEntry:
    """A shard of a zarr store.

    Attributes
    ----------
    shard, n_cells
        Its number, and the number of its cells.
    n_empty, on_edge, features
        As those of an `Entry`.
    """

    shard: int
    n_cells: int
    n_empty: list[int]
    on_edge: list[int]
    features: bytes | None = None


def as_bytes(features: NDArray[np.float32] | None) -> bytes | None:
    """Return a copy of features (n_cells, n_values) as bytes, little-endian. None: not measured."""
    return None if features is None else np.asarray(features, "<f4").tobytes()


def from_bytes(data: bytes | None, n_cells: int) -> NDArray[np.float32] | None:
    """Return the features from `as_bytes`, float32 (n_cells, n_values)."""
    return None if data is None else np.frombuffer(data, "<f4").reshape(n_cells, -1)


class Journal:
    """Writes a journal.

    Parameters
    ----------
    path
        The journal. An existing one is continued.
    about, planes_per_chunk
        Inputs and settings of the file, and number of planes in its chunks, for a new journal.
    """

    def __init__(self, path: Path, about: dict[str, Any], planes_per_chunk: int) -> None:
        is_new = not path.exists()
        if not is_new:
            # entries after an incomplete one would never be read
            os.truncate(path, sum(n_bytes for n_bytes, _ in _whole_entries(path)))
        self._file = path.open("ab")
        self._pending: deque[Entry | ShardEntry] = deque()
        first = {"about": about, "planes_per_chunk": planes_per_chunk}
        self._append([first if is_new else {"opened": True}])

    def add(self, entry: Entry | ShardEntry) -> None:
        """Keep an entry until its images are on disk."""
        self._pending.append(entry)

    def take(self) -> list[Entry | ShardEntry]:
        """Return the kept entries. The caller brings their images to the disk, and then calls `append`."""
        # another thread may add an entry meanwhile; it stays for the next call
        return [self._pending.popleft() for _ in range(len(self._pending))]

    def append(self, entries: Sequence[Entry | ShardEntry]) -> None:
        """Write entries whose images are on disk."""
        self._append([_content(entry) for entry in entries])

    def close(self, *, file_is_closed: bool) -> None:
        """Close the journal.

        Parameters
        ----------
        file_is_closed
            Whether the file was closed properly, and can be opened again.
        """
        # without this line, the next run copies the images into a new file
        with suppress(OSError), self._file:
            if file_is_closed:
                self._append([_CLOSED])

    def _append(self, records: Sequence[dict[str, Any]]) -> None:
        if records:
            self._file.write(b"".join(map(_encoded, records)))
            self._file.flush()
            sync(self._file.fileno())


def _content(entry: Entry | ShardEntry) -> dict[str, Any]:
    """Return the content of an entry; without features, that of earlier versions."""
    return {name: value for name, value in vars(entry).items() if value is not None}


def _encoded(record: dict[str, Any]) -> bytes:
    """Return an entry as it is written."""
    features: bytes | None = record.get("features")
    if features is None:
        return _line(record)
    return _line({**record, "features": [len(features), checksum(features)]}) + features


def _line(record: dict[str, Any]) -> bytes:
    text = json.dumps(record, separators=(",", ":")).encode()
    return b"%08x %b\n" % (checksum(text), text)


def _whole_entries(path: Path) -> Iterator[tuple[int, dict[str, Any]]]:
    """Read a journal up to the first incomplete or damaged entry: the number of bytes of each, and its content."""
    with path.open("rb") as file:
        # not the lines of the file: features have line feeds, too
        while line := file.readline():
            said, _, text = line.rstrip(b"\n").partition(b" ")
            if not line.endswith(b"\n") or said != b"%08x" % checksum(text):
                return
            record = json.loads(text)
            n_bytes = 0
            if "features" in record:
                if not isinstance(record["features"], list):
                    return  # text, before the first version
                n_bytes, expected = record["features"]
                record["features"] = file.read(n_bytes)
                if len(record["features"]) < n_bytes or checksum(record["features"]) != expected:
                    return
            yield len(line) + n_bytes, record


def _records(path: Path) -> Iterator[dict[str, Any]]:
    return (record for _, record in _whole_entries(path))


def read_about(path: Path) -> dict[str, Any] | None:
    """Read the inputs and settings of the file beside a journal. None: the journal is missing or unreadable."""
    first = next(_records(path), {}) if path.is_file() else {}
    return first.get("about")


def read_planes_per_chunk(path: Path) -> int:
    """Read the number of planes in the chunks of the file beside a journal; the oldest files have one."""
    return int(next(_records(path), {}).get("planes_per_chunk", 1))


def read_entries(path: Path) -> Iterator[Entry]:
    """Read the entries of a journal."""
    return (Entry(**record) for record in _records(path) if "rows" in record)


def read_shards(path: Path) -> Iterator[ShardEntry]:
    """Read the entries of the journal of a zarr store."""
    return (ShardEntry(**record) for record in _records(path) if "shard" in record)


def count_cells(path: Path) -> int:
    """Count the cells in the entries of a journal. A shard that was lost and written again has two, and counts once."""
    n_cells = 0
    in_shards: dict[int, int] = {}
    for record in _records(path):
        n_cells += len(record.get("rows", ()))
        if "shard" in record:
            in_shards[record["shard"]] = record["n_cells"]
    return n_cells + sum(in_shards.values())


def is_closed(path: Path) -> bool:
    """Check whether the file beside a journal was closed properly."""
    return list(deque(_records(path), maxlen=1)) == [_CLOSED]
