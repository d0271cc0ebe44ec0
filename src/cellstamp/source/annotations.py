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
from cellstamp.source.elements import open_root
from cellstamp.source.location import path_of, reachable
from cellstamp.source.tables import column_of

_ATTRIBUTES = "spatialdata_attrs"
Column = np.ma.MaskedArray[Any, Any]
"""Values of a column; what is missing in it (NA) is masked."""


@dataclass(frozen=True)
class Table:
    """A table that annotates masks.

    Attributes
    ----------
    columns
        Names of its columns.
    attributes
        What it says of itself: ``region``, ``region_key``, ``instance_key``.
    column
        Reads a column.
    """

    columns: Sequence[str]
    attributes: Mapping[str, Any]
    column: Callable[[str], Column]

    def rows_of(self, masks: Sequence[str], origin: str) -> NDArray[np.bool_]:
        """Which rows annotate cells: those of the first of the masks that any row annotates (ids are the same in all).

        Raises
        ------
        ConfigError
            If it annotates none of them.
        """
        regions = self._named("region_key", origin)
        for mask in masks:
            rows: NDArray[np.bool_] = np.asarray(regions.filled(None) == mask, np.bool_)
            if rows.any():
                return rows
        there = sorted({str(region) for region in regions.compressed()})
        raise ConfigError(
            f"{origin}: the table annotates {', '.join(there) or 'nothing'}, not the cells' mask "
            f"({' or '.join(masks)}); choose a table that does"
        )

    def instances(self, origin: str) -> NDArray[np.uint64]:
        """Id of the cell of each row; 0 where there is none.

        Raises
        ------
        ConfigError
            If they are no whole numbers, or negative.
        """
        ids, name = self._named("instance_key", origin), self.attributes["instance_key"]
        if ids.dtype.kind not in "iu" or (ids.size and ids.min() is not np.ma.masked and ids.min() < 0):
            held = kind_of(ids) if ids.dtype.kind not in "iu" else "negative numbers"
            raise ConfigError(
                f"{origin}: the table's column of ids, {name!r}, must hold whole numbers (it holds {held})"
            )
        return np.asarray(ids.filled(0)).astype(np.uint64)

    def _named(self, key: str, origin: str) -> Column:
        name = self.attributes.get(key)
        if name is None or name not in self.columns:
            raise ConfigError(
                f"{origin}: the table does not say which cells its rows are of ({key} is {name!r}); make it with "
                "spatialdata.models.TableModel.parse"
            )
        return self.column(name)


def kind_of(column: Column) -> str:
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
    return Table(list(held.obs.columns), held.uns.get(_ATTRIBUTES, {}), lambda column: _in_memory(held.obs[column]))


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
    return Table(columns, attributes, lambda column: _in_store(obs[column]))


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
