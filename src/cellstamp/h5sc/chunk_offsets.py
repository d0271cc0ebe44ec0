"""Where in a growing HDF5 file chunks are that have just been written."""

from __future__ import annotations

import os
from itertools import accumulate, pairwise
from typing import Any

import numpy as np
from numpy.typing import NDArray

_MOST_QUESTIONS = 8
"""HDF5 is asked so often at most: it goes through its whole index for an answer."""


class ChunkFinder:
    """Finds chunks where they are most likely to be, and asks HDF5 where they are not.

    HDF5 puts chunks one behind the other, at the end of the file. The first ones have the index of the chunks among
    them, and a file that is gone on with may have holes, which are filled.

    Parameters
    ----------
    dataset
        The dataset, h5py's low-level one, with chunks of one plane.
    descriptor
        The open file.
    """

    def __init__(self, dataset: Any, descriptor: int) -> None:
        self._dataset, self._descriptor = dataset, descriptor
        self._end: int | None = None
        self._n_questions = 0

    def find(
        self, rows: NDArray[np.int64], sizes: NDArray[np.int64], payload: NDArray[np.uint8]
    ) -> list[tuple[int, int]]:
        """Find the chunks of some cells that were written as the last ones; parameters as in `StampWriter.write`.

        Returns
        -------
        list of tuple
            First byte and number of bytes of each stretch of the file that, one after the other, are the payload.
            Empty if they cannot be found.
        """
        first, last = int(sizes[0, 0]), int(sizes[-1, -1])
        if self._end is not None:
            start, self._end = self._end, self._end + payload.size
            if self._holds(start, payload[:first]) and self._holds(self._end - last, payload[-last:]):
                return [(start, payload.size)]
        return self._ask(rows, sizes)

    def _holds(self, start: int, chunk: NDArray[np.uint8]) -> bool:
        return os.pread(self._descriptor, chunk.size, start) == chunk.tobytes()

    def _ask(self, rows: NDArray[np.int64], sizes: NDArray[np.int64]) -> list[tuple[int, int]]:
        self._n_questions += 1
        if self._n_questions > _MOST_QUESTIONS:
            return []
        wanted, starts = set(rows.tolist()), {}

        def note(chunk: Any) -> None:
            row, plane = chunk.chunk_offset[:2]
            if row in wanted:
                starts[row, plane] = chunk.byte_offset

        self._dataset.chunk_iter(note)
        stretches = [
            (starts[row, plane], size)
            for row, planes in zip(rows.tolist(), sizes.tolist(), strict=True)
            for plane, size in enumerate(planes)
        ]
        self._end = max(start + size for start, size in stretches)
        return _merged(stretches)


def _merged(stretches: list[tuple[int, int]]) -> list[tuple[int, int]]:
    """Make one of stretches that follow each other without a gap."""
    ends = [start + size for start, size in stretches]
    begins = [0, *(k for k in range(1, len(stretches)) if stretches[k][0] != ends[k - 1]), len(stretches)]
    totals = [0, *accumulate(size for _, size in stretches)]
    return [(stretches[begin][0], totals[end] - totals[begin]) for begin, end in pairwise(begins)]
