"""Memory that a worker and its parent share: a file that both map, with numbered slots for one result each.

On Linux the file is a memfd. It has no name, is not in ``/dev/shm`` (which containers keep small), and its slots are so
far apart that each grows in place. Elsewhere it is a temporary file, in which slots are packed. No file stays behind
when processes are killed: it loses its name as soon as both processes have it open, or, on Windows, when both have
closed it.
"""

from __future__ import annotations

import errno
import mmap
import os
import secrets
import tempfile
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Protocol, Self

_DISTANCE = 2**32
"""Bytes between the slots of a sparse file, and the largest result in it."""
_GROWTH = 1.25
"""A slot is mapped larger than its result by this factor, so that it is seldom mapped again: each page of a new mapping
is a page fault, which takes three times as long as copying to the page."""
_ZEROS = 2**20
_FLAGS = os.O_RDWR | sum(getattr(os, name, 0) for name in ("O_BINARY", "O_TEMPORARY", "O_SHORT_LIVED"))
"""On Windows: change no line ends, remove the file when the last process closes it, and keep it in memory."""


@dataclass(eq=False)
class ResultMemory:
    """The shared file, open in this process.

    Slots stay mapped, which takes a descriptor for each. Mapping them for each result takes 8% of the time that the
    parent needs for it, and on macOS, Python brings a file to the disk each time it maps it.

    Attributes
    ----------
    file
        Descriptor of the file; None if the system has no room for one, so that results go through the pipe.
    path
        Path for the other process to open; None for a file without a name.
    """

    file: int | None
    path: Path | None = None
    _kept: dict[int, tuple[int, memoryview]] = field(default_factory=dict)

    @classmethod
    def with_name(cls) -> Self:
        """Make a temporary file that a worker opens."""
        try:
            path = Path(tempfile.gettempdir()) / f"cellstamp-{secrets.token_hex(8)}"
            return cls(os.open(path, _FLAGS | os.O_CREAT | os.O_EXCL, 0o600), path)
        except OSError:
            return cls(None)

    @classmethod
    def opened(cls, path: str | None) -> Self:
        """Open the file of another process, and remove its name."""
        try:
            file = None if path is None else os.open(path, _FLAGS)
        except OSError:
            return cls(None)
        if path is not None:
            _remove(Path(path))
        return cls(file)

    def slot(self, number: int, start: int, n_bytes: int) -> memoryview:
        """Return at least the first ``n_bytes`` of a slot that starts there, mapped."""
        kept_start, view = self._kept.get(number, (start, memoryview(b"")))
        if kept_start != start or len(view) < n_bytes:
            view = self.view(start, self._larger(start, n_bytes))
            self._kept[number] = start, view
        return view

    def _larger(self, start: int, n_bytes: int) -> int:
        end = 0 if self.file is None else os.fstat(self.file).st_size
        return max(n_bytes, min(int(n_bytes * _GROWTH), end - start))

    def view(self, start: int, n_bytes: int) -> memoryview:
        """Map a part of the file.

        Raises
        ------
        OSError
            If there is no file, or not enough memory.
        """
        if self.file is None:
            raise OSError(errno.ENOSPC, "no shared memory")
        return memoryview(mmap.mmap(self.file, n_bytes, offset=start))

    def close(self) -> None:
        """Close the file; existing views stay valid."""
        self._kept.clear()
        if self.file is not None:
            os.close(self.file)
        if self.path is not None:
            _remove(self.path)


def _remove(path: Path) -> None:
    with suppress(OSError):  # Windows removes it later, or the other process has removed it
        path.unlink()


class Slots(Protocol):
    """A worker's places for results."""

    def memory(self, slot: int, n_bytes: int) -> tuple[int, memoryview]:
        """Return the start of a slot in the file, and at least its first ``n_bytes``, mapped.

        Raises
        ------
        OSError
            If there is no room.
        """
        ...


class SparseSlots:
    """Slots that grow in place, in a file that needs memory only for written bytes."""

    def __init__(self, memory: ResultMemory) -> None:
        self._memory = memory
        self._views: dict[int, memoryview] = {}

    def memory(self, slot: int, n_bytes: int) -> tuple[int, memoryview]:
        """Return start and memory of a slot; see `Slots`."""
        start = slot * _DISTANCE
        if n_bytes > len(self._views.get(slot, b"")):
            self._views[slot] = self._mapped(start, n_bytes)
        return start, self._views[slot]

    def _mapped(self, start: int, n_bytes: int) -> memoryview:
        if n_bytes > _DISTANCE or self._memory.file is None:
            raise OSError(errno.ENOSPC, "no room for the result")
        larger = min(int(n_bytes * _GROWTH), _DISTANCE)
        if os.fstat(self._memory.file).st_size < start + larger:
            os.ftruncate(self._memory.file, start + larger)
        return self._memory.view(start, larger)


class PackedSlots:
    """Slots one after the other. One that is too small gets a larger place, and others may use the old one."""

    def __init__(self, memory: ResultMemory) -> None:
        self._memory = memory
        self._end = 0
        self._free: list[range] = []
        self._places: dict[int, range] = {}
        self._views: dict[int, memoryview] = {}

    def memory(self, slot: int, n_bytes: int) -> tuple[int, memoryview]:
        """Return start and memory of a slot; see `Slots`."""
        if n_bytes > len(self._places.get(slot, ())):
            place = self._take_place(n_bytes)
            view = self._memory.view(place.start, len(place))
            self._free += [self._places[slot]] if slot in self._places else []
            self._places[slot], self._views[slot] = place, view
        return self._places[slot].start, self._views[slot]

    def _take_place(self, n_bytes: int) -> range:
        for place in self._free:
            if len(place) >= n_bytes:
                self._free.remove(place)
                return place
        unit = mmap.ALLOCATIONGRANULARITY
        end = self._end + -int(-n_bytes * _GROWTH // unit) * unit
        self._extend(end)
        place, self._end = range(self._end, end), end
        return place

    def _extend(self, end: int) -> None:
        """Write zeros after the end: a full disk is an error now, and would kill the process later."""
        if self._memory.file is None:
            raise OSError(errno.ENOSPC, "no shared memory")
        at = os.lseek(self._memory.file, self._end, os.SEEK_SET)
        while at < end:
            at += os.write(self._memory.file, bytes(min(_ZEROS, end - at)))
