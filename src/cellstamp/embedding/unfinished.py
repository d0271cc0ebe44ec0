"""Values of an unfinished embedding on the disk, with a record of those that are complete, to resume it."""

from __future__ import annotations

import json
from collections.abc import Iterator
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType
from typing import Self, TextIO

import numpy as np
from numpy.typing import NDArray

from cellstamp.checksums import checksum
from cellstamp.errors import OutputError, writing
from cellstamp.h5sc.feature_rows import FeatureRows
from cellstamp.system import replace_file

_ORIGIN, _ROWS, _BATCHES = "origin.json", "rows", "batches"


@dataclass(frozen=True)
class Begun:
    """What an interrupted run has recorded.

    Attributes
    ----------
    origin
        Model, settings and images; None: the model could not be identified.
    n_columns
        Number of values for each cell.
    """

    origin: dict[str, str] | None
    n_columns: int

    @classmethod
    def read(cls, folder: Path) -> Begun | None:
        """Return the record in a folder; None: there is none."""
        with suppress(OSError, ValueError, KeyError, TypeError):
            record = json.loads((folder / _ORIGIN).read_text(encoding="utf-8"))
            return cls(record["origin"], int(record["n_columns"]))
        return None

    def write(self, folder: Path) -> None:
        """Write the record into a folder.

        Raises
        ------
        OutputError
            If it cannot be written.
        """
        aside = folder / f"{_ORIGIN}.new"
        with writing(folder / _ORIGIN):
            aside.write_text(json.dumps({"origin": self.origin, "n_columns": self.n_columns}), encoding="utf-8")
            replace_file(aside, folder / _ORIGIN)


class EmbeddedRows:
    """Values of cells, recorded batch by batch with a checksum. A context manager that closes the files.

    Parameters
    ----------
    folder
        Folder of the files, with those of an interrupted run to resume, or empty.
    order
        int64 (n_cells,): rows of the cells in the order in which they are embedded.
    origin
        Model, settings and images; None: unknown.

    Attributes
    ----------
    n_done
        Number of cells that are embedded.
    n_columns
        Number of values for each cell; None before the first batch.
    """

    def __init__(self, folder: Path, order: NDArray[np.int64], origin: dict[str, str] | None) -> None:
        self._folder, self._order, self._origin = folder, order, origin
        self._values: FeatureRows | None = None
        self.n_done, self.n_columns = 0, None
        begun = Begun.read(folder)
        if begun is not None:
            self._open(begun.n_columns)

    n_columns: int | None
    _batches: TextIO

    @property
    def values(self) -> FeatureRows:
        """The values, in the order of the cells. There must be a batch."""
        if self._values is None:
            raise OutputError(f"{self._folder}: no cells were embedded")
        return self._values

    def _open(self, n_columns: int) -> FeatureRows:
        self.n_columns = n_columns
        self._values = FeatureRows(self._folder / _ROWS, self._order.size, n_columns, is_kept=True)
        batches = self._folder / _BATCHES
        valid = list(self._recalled(self._values, batches))
        with writing(batches):
            batches.write_text("".join(valid), encoding="ascii")
            self._batches = batches.open("a", encoding="ascii")
        return self._values

    def _recalled(self, values: FeatureRows, batches: Path) -> Iterator[str]:
        """Take over the batches of an interrupted run, up to the first one that is incomplete on the disk."""
        text = batches.read_text(encoding="ascii", errors="replace") if batches.exists() else ""
        for line in text.splitlines(keepends=True):
            which = self._next(_count_in(line))
            if not which.size or line != _line(_stored(values, which)):
                return
            values.recall(which)
            self.n_done += which.size
            yield line

    def _next(self, n_cells: int) -> NDArray[np.int64]:
        return self._order[self.n_done : self.n_done + n_cells]

    def add(self, values: NDArray[np.float32]) -> None:
        """Store the values of the next cells.

        Parameters
        ----------
        values
            float32 (n, n_columns).

        Raises
        ------
        OutputError
            If they cannot be written.
        """
        if self._values is None:
            Begun(self._origin, values.shape[1]).write(self._folder)
            self._open(values.shape[1])
        self.values.put(self._next(len(values)), values)
        with writing(self._folder / _BATCHES):
            self._batches.write(_line(values))
            self._batches.flush()
        self.n_done += len(values)

    def __enter__(self) -> Self:
        """Return the rows."""
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        """Close the files."""
        if self._values is not None:
            self._values.__exit__(kind, error, trace)
            self._batches.close()


def _line(values: NDArray[np.float32]) -> str:
    """Return the record of a batch: its number of cells, and the checksum of its values."""
    data = np.ascontiguousarray(values, "<f4").reshape(-1).view(np.uint8)
    return f"{len(values)} {checksum(data):08x}\n"


def _count_in(line: str) -> int:
    count = line.partition(" ")[0]
    return int(count) if count.isdigit() else 0


def _stored(values: FeatureRows, which: NDArray[np.int64]) -> NDArray[np.float32]:
    """Return stored values; none if their file ends before them."""
    try:
        return values.stored(which)
    except OutputError:
        return np.empty((0, 1), np.float32)
