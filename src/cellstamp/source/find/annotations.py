"""Read columns of tables that annotate masks, in a store or in a SpatialData object.

Only the requested columns of a table in a store are read.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import zarr
from numpy.typing import NDArray

from cellstamp.errors import ConfigError
from cellstamp.location import path_of, reachable
from cellstamp.source.find.masks import listing
from cellstamp.source.store_root import open_root
from cellstamp.source.table_columns import column_of

_ATTRIBUTES = "spatialdata_attrs"
Column = np.ma.MaskedArray[Any, Any]
"""Values of a column; missing values (NA) are masked."""


@dataclass(frozen=True)
class Table:
    """Table that annotates masks.

    Attributes
    ----------
    name
        Name of the table.
    columns
        Names of the columns.
    attributes
        SpatialData's attributes: ``region``, ``region_key``, ``instance_key``.
    column
        Callable that reads a column by name.
    index
        Callable that reads the names of the rows.
    """

    name: str
    columns: Sequence[str]
    attributes: Mapping[str, Any]
    column: Callable[[str], Column]
    index: Callable[[], Column]

    def regions(self, origin: str) -> Column:
        """Return the name of the element that each row annotates.

        Raises
        ------
        ConfigError
            If the table has no region key.
        """
        return self._named("region_key", origin)

    def instances(self, origin: str) -> Column:
        """Return the id of each row in the element it annotates, numbers or text.

        Raises
        ------
        ConfigError
            If the table has no instance key.
        """
        return self._named("instance_key", origin)

    def _named(self, key: str, origin: str) -> Column:
        name = self.attributes.get(key)
        if name is None or name not in self.columns:
            raise ConfigError(
                f"{origin}: the table has no valid {key} ({name!r}), so its rows cannot be matched to cells. Make it "
                "with spatialdata.models.TableModel.parse"
            )
        return self.column(name)


def column_content(column: Column) -> str:
    """Return the content of a column in words, for messages."""
    kinds = {"b": "booleans", "i": "integers", "u": "integers", "f": "numbers"}
    return kinds.get(column.dtype.kind, "text")


def find_table(name: str, store: str, handler: Any, origin: str) -> Table:
    """Find a table in the store or SpatialData object of a file handler.

    Parameters
    ----------
    name
        Name of the table.
    store
        Path or URL of the handler's store.
    handler
        File handler; for a SpatialData object, the table in memory is used.
    origin
        Configuration key that names the table, for messages.

    Raises
    ------
    ConfigError
        If the table is missing or damaged.
    """
    if path_of(handler) is not None:
        with reachable(store):
            return _table_in_store(name, store, origin)
    tables = getattr(handler, "tables", {})
    _check_is_table(name, list(tables), "the SpatialData object", origin)
    held = tables[name]
    return Table(
        name,
        list(held.obs.columns),
        held.uns.get(_ATTRIBUTES, {}),
        lambda column: _in_memory(held.obs[column]),
        lambda: _in_memory(held.obs.index.to_series()),
    )


def table_names(store: str, handler: Any) -> list[str]:
    """Return the names of all tables in the store or SpatialData object of a file handler."""
    if path_of(handler) is None:
        return sorted(getattr(handler, "tables", {}))
    with reachable(store):
        tables: Any = open_root(store).get("tables", {})
        return sorted(tables.keys())


def _check_is_table(name: str, tables: Sequence[str], where: str, origin: str) -> None:
    if name not in tables:
        raise ConfigError(f"{origin}: this table is not in {where}; it has {listing(sorted(tables), 'no tables')}")


def _table_in_store(name: str, store: str, origin: str) -> Table:
    tables: Any = open_root(store).get("tables", {})
    _check_is_table(name, list(tables.keys()), store, origin)
    try:
        attributes, obs = dict(tables[name].attrs), tables[name]["obs"]
        columns = [str(column) for column in obs.attrs["column-order"]]
    except (KeyError, ValueError, TypeError) as error:
        raise ConfigError(f"{origin}: the table in {store} is damaged ({error}). Write it again") from error
    return Table(
        name, columns, attributes, lambda column: _in_store(obs[column]), lambda: _in_store(obs[obs.attrs["_index"]])
    )


def _in_store(item: Any) -> Column:
    """Return a column as anndata stores it, categories as text."""
    values, missing = column_of(item)
    is_plain = values.dtype.kind in "biuf" and not (isinstance(item, zarr.Group) and "codes" in item)
    return np.ma.array(values if is_plain else values.astype(object), mask=missing)


def _in_memory(column: Any) -> Column:
    """Return a column of pandas."""
    missing = column.isna().to_numpy()
    dtype = {"b": np.bool_, "i": np.int64, "u": np.uint64, "f": np.float64}.get(
        getattr(column.dtype, "kind", "O"), object
    )
    values: NDArray[Any] = np.zeros(len(column), dtype)
    values[~missing] = column[~missing].to_numpy()
    return np.ma.array(values, mask=missing)
