"""A table that annotates masks, in a store or in a SpatialData object: its columns, one at a time.

Of a table in a store only the columns that are asked for are read, whatever else is in it.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import zarr
from numpy.typing import NDArray

from cellstamp.errors import ConfigError
from cellstamp.source.location import path_of, reachable
from cellstamp.source.store_root import open_root
from cellstamp.source.table_columns import column_of

_ATTRIBUTES = "spatialdata_attrs"
Column = np.ma.MaskedArray[Any, Any]
"""Values of a column; what is missing in it (NA) is masked."""


@dataclass(frozen=True)
class Table:
    """A table that annotates masks.

    Attributes
    ----------
    name
        Its own.
    columns
        Names of its columns.
    attributes
        What it says of itself: ``region``, ``region_key``, ``instance_key``.
    column
        Reads a column.
    index
        Reads the names of its rows.
    """

    name: str
    columns: Sequence[str]
    attributes: Mapping[str, Any]
    column: Callable[[str], Column]
    index: Callable[[], Column]

    def regions(self, origin: str) -> Column:
        """Name of the element that each row annotates.

        Raises
        ------
        ConfigError
            If the table does not say it.
        """
        return self._named("region_key", origin)

    def instances(self, origin: str) -> Column:
        """Id of each row in the element it annotates, numbers or text.

        Raises
        ------
        ConfigError
            If the table does not say it.
        """
        return self._named("instance_key", origin)

    def _named(self, key: str, origin: str) -> Column:
        name = self.attributes.get(key)
        if name is None or name not in self.columns:
            raise ConfigError(
                f"{origin}: the table does not say which cells its rows are of ({key} is {name!r}); make it with "
                "spatialdata.models.TableModel.parse"
            )
        return self.column(name)


def column_content(column: Column) -> str:
    """What a column holds, in words."""
    kinds = {"b": "true and false", "i": "whole numbers", "u": "whole numbers", "f": "numbers"}
    return kinds.get(column.dtype.kind, "text")


def find_table(name: str, store: str, handler: Any, origin: str) -> Table:
    """Find a table where a file handler has it.

    Parameters
    ----------
    name
        The table.
    store
        The store that the handler stands for.
    handler
        The file handler; of a SpatialData object it is the table in memory.
    origin
        What asks for it, for messages.

    Raises
    ------
    ConfigError
        If there is none.
    """
    if path_of(handler) is not None:
        with reachable(store):
            return _table_in_store(name, store, origin)
    tables = getattr(handler, "tables", {})
    _check_there(name, list(tables), "the SpatialData object", origin)
    held = tables[name]
    return Table(
        name,
        list(held.obs.columns),
        held.uns.get(_ATTRIBUTES, {}),
        lambda column: _in_memory(held.obs[column]),
        lambda: _in_memory(held.obs.index.to_series()),
    )


def table_names(store: str, handler: Any) -> list[str]:
    """Names of all tables where a file handler has them."""
    if path_of(handler) is None:
        return sorted(getattr(handler, "tables", {}))
    with reachable(store):
        tables: Any = open_root(store).get("tables", {})
        return sorted(tables.keys())


def _check_there(name: str, tables: Sequence[str], where: str, origin: str) -> None:
    if name not in tables:
        raise ConfigError(f"{origin}: no such table in {where}; it has {', '.join(sorted(tables)) or 'no tables'}")


def _table_in_store(name: str, store: str, origin: str) -> Table:
    tables: Any = open_root(store).get("tables", {})
    _check_there(name, list(tables.keys()), store, origin)
    try:
        attributes, obs = dict(tables[name].attrs), tables[name]["obs"]
        columns = [str(column) for column in obs.attrs["column-order"]]
    except (KeyError, ValueError, TypeError) as error:
        raise ConfigError(f"{origin}: the table in {store} is damaged ({error}); write it again") from error
    return Table(
        name, columns, attributes, lambda column: _in_store(obs[column]), lambda: _in_store(obs[obs.attrs["_index"]])
    )


def _in_store(item: Any) -> Column:
    """A column as anndata stores it; categories are text, whatever they are of."""
    values, missing = column_of(item)
    is_plain = values.dtype.kind in "biuf" and not (isinstance(item, zarr.Group) and "codes" in item)
    return np.ma.array(values if is_plain else values.astype(object), mask=missing)


def _in_memory(column: Any) -> Column:
    """A column of pandas."""
    missing = column.isna().to_numpy()
    dtype = {"b": np.bool_, "i": np.int64, "u": np.uint64, "f": np.float64}.get(
        getattr(column.dtype, "kind", "O"), object
    )
    values: NDArray[Any] = np.zeros(len(column), dtype)
    values[~missing] = column[~missing].to_numpy()
    return np.ma.array(values, mask=missing)
