"""What has been written to a growing `.h5sc` file, and where in it: enough to go on after any end of the process.

An HDF5 file that is not closed is no HDF5 file: its index is in memory. Its stamps are in it all the same, and the
journal beside it says where. An entry is written once its stamps are on the disk, so what the journal says is true even
after a power failure; and each entry has a checksum of its stamps, so nothing depends on it.

The journal is text, a line an entry: a checksum of the line (CRC-32, hexadecimal), and JSON. The first says what the
file is made from.
"""

from __future__ import annotations

import json
import os
from collections import deque
from collections.abc import Iterator, Sequence
from contextlib import suppress
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np
from imagecodecs import zlibng_crc32
from numpy.typing import NDArray

_CLOSED = {"closed": True}


@dataclass(frozen=True)
class Entry:
    """Some cells whose stamps are in the file.

    Attributes
    ----------
    rows
        Where the cells stand.
    sizes
        Bytes of each plane of each cell, in C order.
    extents
        Where in the file the planes are, one after the other: pairs of a first byte and a number of bytes.
    checksum
        CRC-32 of all these bytes.
    n_empty
        For each mask, the cells among them without a pixel of it.
    on_edge
        Those rows whose cell mask reaches the edge of the window.
    """

    rows: list[int]
    sizes: list[int]
    extents: list[tuple[int, int]]
    checksum: int
    n_empty: list[int]
    on_edge: list[int]

    def read(self, descriptor: int) -> NDArray[np.uint8] | None:
        """Read the planes from the file; None if they are not there after all."""
        found = b"".join(os.pread(descriptor, n_bytes, start) for start, n_bytes in self.extents)
        payload = np.frombuffer(found, np.uint8)
        return payload if payload.size == sum(self.sizes) and checksum(payload) == self.checksum else None


def checksum(data: Any) -> int:
    """CRC-32 of some bytes."""
    return int(zlibng_crc32(data))


class Journal:
    """Writes a journal.

    Parameters
    ----------
    path
        The journal; one that is there is gone on with.
    about
        What the file is made from; for a new journal.
    """

    def __init__(self, path: Path, about: dict[str, Any]) -> None:
        is_new = not path.exists()
        self._file = path.open("ab")
        self._pending: deque[Entry] = deque()
        self._append([{"about": about} if is_new else {"opened": True}])

    def add(self, entry: Entry) -> None:
        """Keep an entry until its stamps are on the disk."""
        self._pending.append(entry)

    def take(self) -> list[Entry]:
        """Hand over what was kept: whoever takes it brings the stamps to the disk, and then calls `append`."""
        # one by one: another may be added meanwhile, by another thread, and stays for the next time
        return [self._pending.popleft() for _ in range(len(self._pending))]

    def append(self, entries: Sequence[Entry]) -> None:
        """Write entries whose stamps are on the disk."""
        self._append([asdict(entry) for entry in entries])

    def close(self, *, file_is_closed: bool) -> None:
        """Close the journal.

        Parameters
        ----------
        file_is_closed
            Whether the file has been closed as it should be, and can be opened again.
        """
        # without its last line the file is not opened again, but its stamps are carried into another one
        with suppress(OSError), self._file:
            if file_is_closed:
                self._append([_CLOSED])

    def _append(self, records: Sequence[dict[str, Any]]) -> None:
        if records:
            self._file.write(b"".join(map(_line, records)))
            self._file.flush()
            os.fsync(self._file.fileno())


def _line(record: dict[str, Any]) -> bytes:
    text = json.dumps(record, separators=(",", ":")).encode()
    return b"%08x %b\n" % (checksum(text), text)


def _records(path: Path) -> Iterator[dict[str, Any]]:
    """What a journal says, up to the first line that is not whole."""
    with path.open("rb") as file:
        for line in file:
            said, _, text = line.rstrip(b"\n").partition(b" ")
            if not line.endswith(b"\n") or said != b"%08x" % checksum(text):
                return
            yield json.loads(text)


def read_about(path: Path) -> dict[str, Any] | None:
    """What the file beside a journal is made from; None if there is no journal, or nothing can be read from it."""
    first = next(_records(path), {}) if path.is_file() else {}
    return first.get("about")


def read_entries(path: Path) -> Iterator[Entry]:
    """The entries of a journal."""
    return (Entry(**record) for record in _records(path) if "rows" in record)


def is_closed(path: Path) -> bool:
    """Whether the file beside a journal was closed as it should be."""
    return list(deque(_records(path), maxlen=1)) == [_CLOSED]
