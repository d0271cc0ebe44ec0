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

    Parameters
    ----------
    file
        Descriptor of the file; None makes one.
    keep
        Whether slots stay mapped, as in the worker, which fills them again and again. Python has a descriptor open for
        each, so the parent, which has many workers, maps a slot only for as long as its result is in use.
    """

    def __init__(self, file: int | None = None, *, keep: bool = False) -> None:
        self.file = _unnamed_file() if file is None else file
        self._keep = keep
        self._maps: dict[int, mmap.mmap] = {}

    def memory(self, slot: int, n_bytes: int) -> memoryview:
        """Map at least the first ``n_bytes`` of a slot; what is in them stays."""
        kept = self._maps.get(slot)
        if kept is not None and len(kept) >= n_bytes:
            return memoryview(kept)
        start = slot * _SLOT_BYTES
        if os.fstat(self.file).st_size < start + n_bytes:
            os.ftruncate(self.file, start + n_bytes)
        mapped = mmap.mmap(self.file, n_bytes, offset=start)
        if self._keep:
            self._maps[slot] = mapped
        return memoryview(mapped)

    def close(self) -> None:
        """Give the memory up; views of it stay valid until they are gone."""
        self._maps.clear()
        os.close(self.file)


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
    if not parcel.places:
        return pickle.loads(parcel.pickled)
    memory = slots.memory(parcel.slot, parcel.places[-1].stop)
    return pickle.loads(parcel.pickled, buffers=[memory[place] for place in parcel.places])


def _aligned(n_bytes: int) -> int:
    return -(-n_bytes // _ALIGNMENT) * _ALIGNMENT


def _unnamed_file() -> int:
    if hasattr(os, "memfd_create"):
        return os.memfd_create("cellstamp")
    with tempfile.TemporaryFile() as file:
        return os.dup(file.fileno())
