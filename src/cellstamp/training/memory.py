"""Memory for batches that is used again when nobody uses it any more: new memory costs as much as decoding does."""

from __future__ import annotations

import weakref
from typing import Any

import numpy as np
from numpy.typing import NDArray


class Recycler:
    """Gives out arrays, and takes their memory back when the last view of it, of numpy's or of torch's, is gone.

    Parameters
    ----------
    most_kept
        So many unused ones are kept.
    """

    def __init__(self, most_kept: int = 2) -> None:
        self._most_kept = most_kept
        self._unused: list[NDArray[np.uint8]] = []

    def __reduce__(self) -> tuple[type[Recycler], tuple[int]]:
        """Take along no memory."""
        return type(self), (self._most_kept,)

    def empty(self, shape: tuple[int, ...], dtype: np.dtype[Any]) -> NDArray[Any]:
        """Give an array with anything in it."""
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
    """What arrays made of some memory keep alive as long as they live themselves."""

    def __init__(self, memory: NDArray[np.uint8]) -> None:
        self.memory = memory

    @property
    def __array_interface__(self) -> dict[str, Any]:
        return self.memory.__array_interface__
