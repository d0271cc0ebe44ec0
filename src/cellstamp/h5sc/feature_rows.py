"""A temporary file with the features of all cells in their final order, filled while results arrive in any order."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from itertools import pairwise
from pathlib import Path
from types import TracebackType
from typing import Self

import numpy as np
from numpy.typing import NDArray

from cellstamp.errors import OutputError, writing

_BLOCK_BYTES = 2**26


class FeatureRows:
    """Rows of features on the disk. A context manager; removes the file.

    The journal has the same values, so this file need not survive an interruption.

    Parameters
    ----------
    path
        The file; an existing one is overwritten.
    n_cells, n_values
        Number of rows, and of values in each.
    """

    def __init__(self, path: Path, n_cells: int, n_values: int) -> None:
        self._path, self._row_bytes = path, 4 * n_values
        self._is_put = np.zeros(n_cells, np.bool_)
        with writing(path):
            self._file = path.open("w+b", buffering=0)

    def put(self, rows: NDArray[np.int64] | Sequence[int], values: NDArray[np.float32]) -> None:
        """Store the values of some rows; later values replace earlier ones.

        Parameters
        ----------
        rows
            Numbers of the rows.
        values
            float32 (n_rows, n_values).

        Raises
        ------
        OutputError
            If the file cannot be written.
        """
        numbers = np.asarray(rows, np.int64)
        # neighbouring rows are written together
        starts = [0, *(np.flatnonzero(np.diff(numbers) != 1) + 1).tolist(), numbers.size]
        data = np.ascontiguousarray(values, "<f4").data.cast("B")
        with writing(self._path):
            for start, end in pairwise(starts):
                self._file.seek(int(numbers[start]) * self._row_bytes)
                self._write(data[start * self._row_bytes : end * self._row_bytes])
        self._is_put[numbers] = True

    def _write(self, data: memoryview) -> None:
        while data:
            data = data[self._file.write(data) :]

    def blocks(self) -> Iterator[tuple[slice, NDArray[np.float32]]]:
        """Yield all rows in order: which, and their values (n_rows, n_values).

        Raises
        ------
        OutputError
            If rows are missing.
        """
        n_cells, at_once = self._is_put.size, max(1, _BLOCK_BYTES // self._row_bytes)
        if not self._is_put.all():
            raise OutputError(f"{self._path}: the features of {int((~self._is_put).sum())} cells are missing")
        for start in range(0, n_cells, at_once):
            rows = slice(start, min(start + at_once, n_cells))
            yield rows, self._read(rows)

    def _read(self, rows: slice) -> NDArray[np.float32]:
        values = np.empty((rows.stop - rows.start, self._row_bytes // 4), "<f4")
        view = values.data.cast("B")
        with writing(self._path):
            self._file.seek(rows.start * self._row_bytes)
            while view:
                n_bytes = self._file.readinto(view)
                if not n_bytes:
                    raise OSError(f"it ends before row {rows.stop}")
                view = view[n_bytes:]
        return values

    def __enter__(self) -> Self:
        """Return the rows."""
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        """Close and remove the file."""
        self._file.close()
        self._path.unlink(missing_ok=True)
