"""Columns of the cells of a gallery, read when they are used."""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any, Literal

from cellstamp.errors import ConfigError
from cellstamp.gallery.values import Values, values_of
from cellstamp.similar_names import did_you_mean

_MOST_KEPT = 8
"""Columns in memory: of a million cells, each takes 4 to 8 MB."""

Source = Literal["obs", "feature", "embedding", "tag"]


@dataclass(frozen=True)
class Column:
    """A column, and a way to read it.

    Attributes
    ----------
    source
        "obs" for tables of cells, "feature" for measured features, "embedding" for coordinates such as a UMAP, "tag"
        for cells that the user has named.
    read
        Returns one value for each cell of the gallery.
    value
        Row -> value of one cell. None: it is not shown for single cells.
    """

    name: str
    source: Source
    read: Callable[[], Any]
    value: Callable[[int], Any] | None = None


class Columns:
    """All columns by name. Those used last are kept in memory."""

    def __init__(self, columns: Iterator[Column]) -> None:
        self._columns: dict[str, Column] = {}
        for column in columns:
            self._columns.setdefault(column.name, column)
        self._kept: OrderedDict[str, Values] = OrderedDict()

    def __contains__(self, name: str) -> bool:
        return name in self._columns

    def __iter__(self) -> Iterator[Column]:
        return iter(self._columns.values())

    def put(self, column: Column) -> None:
        """Add a column, or replace the one with its name."""
        self._columns[column.name] = column
        self._kept.pop(column.name, None)

    def values(self, name: str) -> Values:
        """Return the values of a column.

        Raises
        ------
        ConfigError
            If there is none with this name.
        """
        if name not in self._columns:
            raise ConfigError(f"there is no column {name!r}{did_you_mean(name, self._columns)}")
        if name not in self._kept:
            self._kept[name] = values_of(self._columns[name].read())
            if len(self._kept) > _MOST_KEPT:
                self._kept.popitem(last=False)
        self._kept.move_to_end(name)
        return self._kept[name]
