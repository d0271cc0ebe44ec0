"""Send results from a worker to its parent through shared memory.

A pipe copies every byte through the kernel twice, in pieces of 64 KiB. Instead, large buffers of a result (pickle's
out-of-band buffers, PEP 574) are copied into a file that both processes map. The pipe carries the rest, a `Parcel`.
"""

from __future__ import annotations

import pickle
from dataclasses import dataclass
from itertools import accumulate
from typing import Any

from cellstamp.engines.result_memory import ResultMemory, Slots

_LARGE = 2**12
"""Smaller buffers go through the pipe: mapping them takes longer."""
_ALIGNMENT = 64
"""Buffers start at multiples of this number of bytes, as numpy's arrays do."""


@dataclass(frozen=True)
class Parcel:
    """A result in flight.

    Attributes
    ----------
    pickled
        The result without its large buffers.
    slot
        Number of the slot that holds the buffers.
    start
        Place of the slot in the memory, in bytes.
    places
        Place of each buffer in the slot, in bytes.
    """

    pickled: bytes
    slot: int
    start: int = 0
    places: tuple[slice, ...] = ()


def pack(value: Any, slots: Slots, slot: int) -> Parcel:
    """Write the large buffers of a value into a slot, and return the rest.

    If there is no room for them, as on a full disk, they stay with the rest.
    """
    buffers: list[memoryview] = []

    def stays_inside(buffer: pickle.PickleBuffer) -> bool:
        raw = buffer.raw()
        if raw.nbytes >= _LARGE:
            buffers.append(raw)
        return raw.nbytes < _LARGE

    pickled = pickle.dumps(value, pickle.HIGHEST_PROTOCOL, buffer_callback=stays_inside)
    if not buffers:
        return Parcel(pickled, slot)
    starts = [0, *accumulate(_aligned(buffer.nbytes) for buffer in buffers)]
    try:
        start, memory = slots.memory(slot, starts[-1])
    except OSError:
        return Parcel(pickle.dumps(value, pickle.HIGHEST_PROTOCOL), slot)
    places = tuple(slice(place, place + buffer.nbytes) for place, buffer in zip(starts, buffers, strict=False))
    for place, buffer in zip(places, buffers, strict=True):
        memory[place] = buffer
    return Parcel(pickled, slot, start, places)


def unpack(parcel: Parcel, memory: ResultMemory) -> Any:
    """Return the value; its large arrays are views of the memory, valid until the slot is reused."""
    if not parcel.places:
        return pickle.loads(parcel.pickled)
    mapped = memory.slot(parcel.slot, parcel.start, parcel.places[-1].stop)
    return pickle.loads(parcel.pickled, buffers=[mapped[place] for place in parcel.places])


def _aligned(n_bytes: int) -> int:
    return -(-n_bytes // _ALIGNMENT) * _ALIGNMENT
