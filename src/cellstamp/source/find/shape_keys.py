"""Match shapes of nuclei to shapes of cells by their indexes, or by columns such as ``cell_id``."""

from __future__ import annotations

from collections.abc import Collection
from dataclasses import dataclass, replace
from functools import cached_property
from itertools import product
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from cellstamp.source.find.outline_files import FileOutlines
from cellstamp.source.id_columns import SHAPE_COLUMNS

if TYPE_CHECKING:
    import pandas as pd

_EXACT = 2.0**53
"""Integers below are exact as floats."""


@dataclass(frozen=True)
class ShapesElement:
    """A shapes element.

    Attributes
    ----------
    name, where
        Its name, and its name for messages.
    found
        Its outlines.
    columns
        Its columns but the geometry, and its index.
    """

    name: str
    where: str
    found: FileOutlines
    columns: pd.DataFrame

    @cached_property
    def index(self) -> NDArray[Any]:
        """Return the index of the shapes that have an outline."""
        return as_integers(np.asarray(self.columns.index.to_numpy()[self.found.rows]))

    def column(self, name: str) -> NDArray[Any]:
        """Return a column of the shapes that have an outline."""
        return np.asarray(self.columns[name].to_numpy()[self.found.rows])


@dataclass(frozen=True)
class Key:
    """What identifies the shapes of an element: its index or one of its columns.

    Attributes
    ----------
    name
        Name of the index or column.
    values
        (n,): integers or texts, without missing ones.
    rows
        int64 (n,): row of each in the element.
    is_column
        Whether it is a column.
    """

    name: Any
    values: NDArray[Any]
    rows: NDArray[np.int64]
    is_column: bool

    @property
    def words(self) -> str:
        """Return its name for messages."""
        return f"column {self.name!r}" if self.is_column else "index"


@dataclass(frozen=True)
class Match:
    """The cells of nuclei.

    Attributes
    ----------
    ours, theirs
        Keys of nuclei and cells by which they were matched.
    rows
        int64 (n_nuclei,): row of the cell of each nucleus, or -1.
    unused
        Columns of the nuclei that should name cells, but name none of them.
    """

    ours: Key
    theirs: Key
    rows: NDArray[np.int64]
    unused: tuple[str, ...] = ()

    @property
    def n_nuclei(self) -> int:
        """Return the number of nuclei with a cell."""
        return int((self.rows >= 0).sum())

    @property
    def precedence(self) -> int:
        """Return 2 for columns of one name, 1 for another column of the nuclei, 0 for the index of the nuclei."""
        is_named = self.ours.is_column or self.theirs.is_column
        return 2 if is_named and self.ours.name == self.theirs.name else int(self.ours.is_column)


def as_integers(ids: NDArray[Any]) -> NDArray[Any]:
    """Return ids as integers if all are equal to integers, such as 2.0; other ids unchanged."""
    import pandas as pd

    if ids.dtype.kind == "O" and pd.api.types.infer_dtype(ids) in ("integer", "floating", "mixed-integer-float"):
        ids = pd.Index(ids.tolist()).to_numpy()
    return ids.astype(np.int64) if ids.dtype.kind == "f" and are_whole(ids).all() else ids


def are_whole(numbers: NDArray[Any]) -> NDArray[np.bool_]:
    """Return which floats are equal to integers, without rounding."""
    return np.asarray((np.floor(numbers) == numbers) & (np.abs(numbers) < _EXACT))


def match_nuclei(nuclei: ShapesElement, cells: ShapesElement) -> Match:
    """Return the cells of nuclei. Columns that name cells precede indexes, which may have equal numbers by chance."""
    ours, theirs = _index_of(nuclei), _index_of(cells)
    columns = columns_naming_cells(nuclei, cells)
    known = [key for key in _columns_of(cells, (*SHAPE_COLUMNS, ours.name)) if _all_differ(key.values)]
    pairs = [*product(columns, (theirs, *known)), *product((ours,), (*known, theirs))]
    matches = [Match(own, key, _rows_of(own, key, nuclei.index.size)) for own, key in pairs]
    best = max(matches, key=lambda match: (match.n_nuclei > 0, match.precedence, match.n_nuclei))
    return best if best.ours.is_column else replace(best, unused=tuple(column.words for column in columns))


def columns_naming_cells(nuclei: ShapesElement, cells: ShapesElement) -> list[Key]:
    """Return the columns of nuclei that name their cells."""
    return _columns_of(nuclei, (*SHAPE_COLUMNS, cells.name, cells.columns.index.name))


def _index_of(element: ShapesElement) -> Key:
    return _key(element.columns.index.name, element.index, is_column=False)


def _columns_of(element: ShapesElement, names: Collection[Any]) -> list[Key]:
    return [_key(name, element.column(name), is_column=True) for name in element.columns.columns if name in names]


def _key(name: Any, values: NDArray[Any], *, is_column: bool) -> Key:
    import pandas as pd

    rows = np.flatnonzero(pd.notna(values))
    return Key(name, as_integers(values[rows]), rows, is_column)


def _rows_of(wanted: Key, known: Key, n: int) -> NDArray[np.int64]:
    """Return the row of the known value for each of n rows, or -1. Integers equal their texts."""
    import pandas as pd

    one, other = wanted.values, known.values
    if (one.dtype.kind in "iu") != (other.dtype.kind in "iu"):
        one, other = one.astype(str), other.astype(str)
    at = pd.Index(other).get_indexer(pd.Index(one))
    rows = np.full(n, -1)
    rows[wanted.rows[at >= 0]] = known.rows[at[at >= 0]]
    return rows


def _all_differ(values: NDArray[Any]) -> bool:
    import pandas as pd

    return bool(pd.Index(values).is_unique)
