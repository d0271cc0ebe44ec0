"""Find the bytes of chunks that were just written to a growing HDF5 file."""

from __future__ import annotations

from itertools import accumulate, pairwise
from typing import Any

import numpy as np
from numpy.typing import NDArray

from cellstamp.encoded_cells import EncodedCells
from cellstamp.system import RawFile

_COMPARED = 2**10
"""Bytes at the start and the end of the payload that are looked for. A wrong place is harmless: entries of the journal
have a checksum of all bytes."""
_MOST_SCANS = 8
"""Most searches of the index of HDF5: each goes through all chunks."""


class ChunkFinder:
    """Find chunks where HDF5 most likely put them, or else in its index.

    HDF5 appends chunks to the file. Blocks of the index are between the first ones, and a resumed file may have gaps
    that HDF5 fills.

    Parameters
    ----------
    dataset
        h5py's low-level dataset, with chunks of one or several planes of a cell.
    file
        The same file, opened once more.
    """

    def __init__(self, dataset: Any, file: RawFile) -> None:
        self._dataset, self._file = dataset, file
        self._end: int | None = None
        self._n_scans = 0

    def find(self, cells: EncodedCells) -> list[tuple[int, int]]:
        """Find the chunks of the cells that were written last.

        Returns
        -------
        list of tuple
            First byte and number of bytes of each stretch of the file; together they are the payload. Empty if the
            chunks cannot be found.
        """
        payload = cells.payload
        if self._end is not None:
            start, self._end = self._end, self._end + payload.size
            begin, end = payload[:_COMPARED], payload[-_COMPARED:]
            if self._holds(start, begin) and self._holds(self._end - end.size, end):
                return [(start, payload.size)]
        return self._scan(cells)

    def _holds(self, start: int, some: NDArray[np.uint8]) -> bool:
        return self._file.read(some.size, start) == some.tobytes()

    def _scan(self, cells: EncodedCells) -> list[tuple[int, int]]:
        self._n_scans += 1
        if self._n_scans > _MOST_SCANS:
            return []
        wanted, starts = set(cells.rows.tolist()), {}
        per_chunk = self._dataset.get_create_plist().get_chunk()[1]

        def note(chunk: Any) -> None:
            row, plane = chunk.chunk_offset[:2]
            if row in wanted:
                starts[row, plane // per_chunk] = chunk.byte_offset

        self._dataset.chunk_iter(note)
        stretches = [
            (starts[row, number], size)
            for row, sizes in zip(cells.rows.tolist(), cells.sizes.tolist(), strict=True)
            for number, size in enumerate(sizes)
        ]
        self._end = max(start + size for start, size in stretches)
        return _merged(stretches)


def _merged(stretches: list[tuple[int, int]]) -> list[tuple[int, int]]:
    """Merge stretches without a gap between them."""
    ends = [start + size for start, size in stretches]
    begins = [0, *(k for k in range(1, len(stretches)) if stretches[k][0] != ends[k - 1]), len(stretches)]
    totals = [0, *accumulate(size for _, size in stretches)]
    return [(stretches[begin][0], totals[end] - totals[begin]) for begin, end in pairwise(begins)]
