"""Results handed from a worker to its parent through shared memory.

A pipe carries every byte through the kernel twice, in pieces of 64 KiB, each a turn of both processes. Here the large
buffers of a result are copied into memory that both processes have mapped (pickle's out-of-band buffers, PEP 574), and
the pipe carries the rest.
"""

from __future__ import annotations

import mmap
import os
import pickle
import tempfile
from dataclasses import dataclass
from itertools import accumulate
from multiprocessing.reduction import DupFd
from typing import Any

_LARGE = 2**12
"""Buffers of fewer bytes go through the pipe: so few that the results a worker may have on their way never fill it."""
_ALIGNMENT = 64
"""Buffers begin at multiples of so many bytes, as arrays do elsewhere."""
_SLOT_BYTES = 2**32
"""Distance of the slots in their file, which has holes where nothing was written. What is larger takes the pipe."""


class Slots:
    """Memory that a worker shares with its parent, in numbered slots for one result each.

    A slot takes room as results need it, and keeps it. The memory has no name: when both processes have ended, however
    they did, it is gone. It is not in ``/dev/shm``, which containers keep small.
    """

    def __init__(self) -> None:
        self._file = _unnamed_file()
        self._maps: dict[int, mmap.mmap] = {}

    def __getstate__(self) -> Any:
        """Take the file along to a process that is being started; it cannot be sent to one that runs."""
        return DupFd(self._file)

    def __setstate__(self, sent: Any) -> None:
        self._file = sent.detach()
        self._maps = {}

    def memory(self, slot: int, n_bytes: int) -> memoryview:
        """Map at least the first ``n_bytes`` of a slot; what is in them stays."""
        if slot not in self._maps or len(self._maps[slot]) < n_bytes:
            start = slot * _SLOT_BYTES
            if os.fstat(self._file).st_size < start + n_bytes:
                os.ftruncate(self._file, start + n_bytes)
            self._maps[slot] = mmap.mmap(self._file, n_bytes, offset=start)
        return memoryview(self._maps[slot])

    def close(self) -> None:
        """Give the memory up; views of it stay valid until they are gone."""
        self._maps.clear()
        os.close(self._file)


@dataclass(frozen=True)
class Parcel:
    """A result on its way.

    Attributes
    ----------
    pickled
        The result but for its large buffers.
    slot
        Which slot has these.
    places
        Where each of them is in the slot.
    """

    pickled: bytes
    slot: int
    places: tuple[slice, ...]


def pack(value: Any, slots: Slots, slot: int) -> Parcel:
    """Put the large buffers of a value into a slot, in place of what was there."""
    buffers: list[memoryview] = []
    room = _SLOT_BYTES

    def stays_inside(buffer: pickle.PickleBuffer) -> bool:
        nonlocal room
        raw = buffer.raw()
        if raw.nbytes < _LARGE or _aligned(raw.nbytes) > room:
            return True
        room -= _aligned(raw.nbytes)
        buffers.append(raw)
        return False

    pickled = pickle.dumps(value, pickle.HIGHEST_PROTOCOL, buffer_callback=stays_inside)
    starts = [0, *accumulate(_aligned(buffer.nbytes) for buffer in buffers)]
    places = tuple(slice(start, start + buffer.nbytes) for start, buffer in zip(starts, buffers, strict=False))
    for place, buffer in zip(places, buffers, strict=True):
        slots.memory(slot, starts[-1])[place] = buffer
    return Parcel(pickled, slot, places)


def unpack(parcel: Parcel, slots: Slots) -> Any:
    """Take the value out; its large arrays are views of the slot, valid until the slot is used again."""
    end = parcel.places[-1].stop if parcel.places else 0
    return pickle.loads(parcel.pickled, buffers=[slots.memory(parcel.slot, end)[place] for place in parcel.places])


def _aligned(n_bytes: int) -> int:
    return -(-n_bytes // _ALIGNMENT) * _ALIGNMENT


def _unnamed_file() -> int:
    if hasattr(os, "memfd_create"):
        return os.memfd_create("cellstamp")
    with tempfile.TemporaryFile() as file:
        return os.dup(file.fileno())
