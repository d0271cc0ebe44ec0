"""Send results from a worker to its parent through shared memory.

A pipe copies every byte through the kernel twice, in pieces of 64 KiB. Instead, large buffers of a result (pickle's
out-of-band buffers, PEP 574) are copied into a `Slots` file that both processes map. The pipe carries the rest, a
`Parcel`.
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
"""Smaller buffers go through the pipe: few enough bytes that results in flight never fill it."""
_ALIGNMENT = 64
"""Buffers start at multiples of this number of bytes, as numpy's arrays do."""
_SLOT_BYTES = 2**32
"""Distance of the slots in their sparse file. Larger results go through the pipe."""


class Slots:
    """Memory shared by a worker and its parent, in numbered slots for one result each.

    A slot grows with its results and never shrinks. The memory has no name, so the system frees it when both processes
    have ended. It is not in ``/dev/shm``, which containers keep small.

    Parameters
    ----------
    file
        Descriptor of the file; None creates one.
    keep
        Whether slots stay mapped, as in the worker. Each mapping keeps a descriptor open, so the parent of many workers
        maps a slot only while its result is in use.
    """

    def __init__(self, file: int | None = None, *, keep: bool = False) -> None:
        self.file = _unnamed_file() if file is None else file
        self._keep = keep
        self._maps: dict[int, mmap.mmap] = {}

    def memory(self, slot: int, n_bytes: int) -> memoryview:
        """Map at least the first ``n_bytes`` of a slot; their content is kept."""
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
        """Close the file; existing views stay valid."""
        self._maps.clear()
        os.close(self.file)


@dataclass(frozen=True)
class Parcel:
    """A result in flight.

    Attributes
    ----------
    pickled
        The result without its large buffers.
    slot
        Number of the slot that holds the buffers.
    places
        Place of each buffer in the slot, in bytes.
    """

    pickled: bytes
    slot: int
    places: tuple[slice, ...]


def pack(value: Any, slots: Slots, slot: int) -> Parcel:
    """Write the large buffers of a value into a slot, and return the rest."""
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
    """Return the value; its large arrays are views of the slot, valid until the slot is reused."""
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
