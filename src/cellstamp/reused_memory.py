"""Reuse the memory of batches: new memory takes as long as decoding."""

from __future__ import annotations

import weakref
from typing import Any

import numpy as np
from numpy.typing import NDArray


class Recycler:
    """Provide arrays, and reuse their memory when the last view of it, in numpy or torch, is freed.

    Parameters
    ----------
    most_kept
        Largest number of unused arrays to keep.
    """

    def __init__(self, most_kept: int = 2) -> None:
        self._most_kept = most_kept
        self._unused: list[NDArray[np.uint8]] = []

    def __reduce__(self) -> tuple[type[Recycler], tuple[int]]:
        """Pickle without memory."""
        return type(self), (self._most_kept,)

    def empty(self, shape: tuple[int, ...], dtype: np.dtype[Any]) -> NDArray[Any]:
        """Return an array without initialising it."""
        n_bytes = int(np.prod(shape)) * dtype.itemsize
        lease = _Lease(self._memory(n_bytes))
        weakref.finalize(lease, self._take_back, lease.memory).atexit = False
        return np.asarray(lease)[:n_bytes].view(dtype).reshape(shape)

    def _memory(self, n_bytes: int) -> NDArray[np.uint8]:
        try:
            memory = self._unused.pop()
        except IndexError:
            memory = np.empty(n_bytes, np.uint8)
        return memory if memory.size >= n_bytes else np.empty(n_bytes, np.uint8)

    def _take_back(self, memory: NDArray[np.uint8]) -> None:
        if len(self._unused) < self._most_kept:
            self._unused.append(memory)


class _Lease:
    """Owner of an array's memory: it is freed with the last view of that array."""

    def __init__(self, memory: NDArray[np.uint8]) -> None:
        self.memory = memory

    @property
    def __array_interface__(self) -> dict[str, Any]:
        return self.memory.__array_interface__
