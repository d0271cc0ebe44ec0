"""A temporary file with the values of all cells in their final order, filled while results arrive in any order."""

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
    """Rows of values on the disk, such as features. A context manager that closes the file.

    Parameters
    ----------
    path
        The file.
    n_cells, n_values
        Number of rows, and of values in each.
    is_kept
        Whether an existing file is opened, with no row put yet (see `recall`), and the file is kept at the end.
        Otherwise, an existing file is overwritten, and the file is removed: a journal has the same values.
    """

    def __init__(self, path: Path, n_cells: int, n_values: int, *, is_kept: bool = False) -> None:
        self._path, self._row_bytes, self._is_kept = path, 4 * n_values, is_kept
        self.n_rows, self.n_values = n_cells, n_values
        self._is_put = np.zeros(n_cells, np.bool_)
        with writing(path):
            self._file = path.open("r+b" if is_kept and path.exists() else "w+b", buffering=0)

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
        data = np.ascontiguousarray(values, "<f4").data.cast("B")
        with writing(self._path):
            for start, end in _neighbours(numbers):
                self._file.seek(int(numbers[start]) * self._row_bytes)
                self._write(data[start * self._row_bytes : end * self._row_bytes])
        self._is_put[numbers] = True

    def _write(self, data: memoryview) -> None:
        while data:
            data = data[self._file.write(data) :]

    def stored(self, rows: NDArray[np.int64]) -> NDArray[np.float32]:
        """Return the values of some rows, float32 (n_rows, n_values).

        Raises
        ------
        OutputError
            If the file ends before them.
        """
        parts = [self._read(slice(int(rows[start]), int(rows[end - 1]) + 1)) for start, end in _neighbours(rows)]
        return np.concatenate(parts)

    def recall(self, rows: NDArray[np.int64]) -> None:
        """Take rows of the existing file as put."""
        self._is_put[rows] = True

    def blocks(self) -> Iterator[tuple[slice, NDArray[np.float32]]]:
        """Yield all rows in order: which, and their values (n_rows, n_values).

        Raises
        ------
        OutputError
            If rows are missing.
        """
        n_cells, at_once = self._is_put.size, max(1, _BLOCK_BYTES // self._row_bytes)
        if not self._is_put.all():
            raise OutputError(f"{self._path}: the values of {int((~self._is_put).sum())} cells are missing")
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
        """Close the file, and remove it unless it is kept."""
        self._file.close()
        if not self._is_kept:
            self._path.unlink(missing_ok=True)


def _neighbours(rows: NDArray[np.int64]) -> Iterator[tuple[int, int]]:
    """Yield the begin and end of each stretch of rows that follow each other, which are read or written together."""
    return pairwise([0, *(np.flatnonzero(np.diff(rows) != 1) + 1).tolist(), rows.size])
