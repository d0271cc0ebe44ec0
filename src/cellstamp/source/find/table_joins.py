"""Rows of a table -> ids of cells in a mask, through the table's own columns."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from cellstamp.errors import ConfigError
from cellstamp.rules import LARGEST_ID
from cellstamp.source.find.annotations import Column, Table, column_content
from cellstamp.source.find.joining_advice import how_to_join
from cellstamp.source.read.arrays import ArrayHandle

LABEL_COLUMNS = ("cell_labels", "cell_label", "label_id", "label", "scportrait_cell_id")
"""Columns in which tables keep a cell's id in the mask, when their rows annotate something else, like circles."""


@dataclass(frozen=True)
class CellRows:
    """The rows of a table that are cells of a mask.

    Attributes
    ----------
    rows
        bool (n,): which.
    ids
        uint64 (n,): the id in the mask; 0 where there is none.
    """

    rows: NDArray[np.bool_]
    ids: NDArray[np.uint64]

    def of(self, wanted: NDArray[np.bool_], origin: str) -> NDArray[np.uint64]:
        """Ids of some rows, ascending.

        Raises
        ------
        ConfigError
            If some of them have none.
        """
        found = self.ids[self.rows & wanted]
        n_without = int((found == 0).sum())
        if n_without:
            raise ConfigError(
                f"{origin}: {n_without} of {found.size} cells have no id in the mask (0 or NA); leave them out, with a "
                "column that is false for them"
            )
        return np.unique(found)


def rows_in_mask(table: Table, masks: Sequence[ArrayHandle], origin: str, ids: str | None = None) -> CellRows:
    """Find the rows of a table that are cells of one of the masks.

    Rows annotate a mask by the numbers in the table's instance key. Where they annotate something else, or by text, a
    column with the name of a mask, or one of `LABEL_COLUMNS`, has the numbers.

    Parameters
    ----------
    table
        The table.
    masks
        Rows of the first that any row annotates count (ids are the same in all).
    origin
        What asks for it, for messages.
    ids
        Name of the column with each row's id in the mask, instead.

    Raises
    ------
    ConfigError
        If the table cannot be joined to the masks.
    """
    if ids is not None:
        return _by_column(table, ids, origin)
    regions, instances = table.regions(origin), table.instances(origin)
    names = [mask.name for mask in masks]
    rows = _first_annotated(regions, names)
    if rows is not None and instances.dtype.kind in "iu":
        if instances.size and instances.min() is not np.ma.masked and instances.min() < 0:
            raise _no_numbers(table, "negative numbers", origin)
        return CellRows(rows, np.asarray(instances.filled(0)).astype(np.uint64))
    if rows is None and len(set(regions.compressed().tolist())) != 1:
        raise _of_something_else(regions, names, origin)
    rows = np.ones(regions.shape, np.bool_) if rows is None else rows
    for column in _label_columns(table, names):
        found = _whole_numbers(table.column(column))
        if found is not None and _all_differ(found[rows]):
            return CellRows(rows, found)
    if instances.dtype.kind in "iu":
        raise _of_something_else(regions, names, origin)
    if instances.dtype.kind != "O":
        raise _no_numbers(table, column_content(instances), origin)
    raise ConfigError(how_to_join(table, masks, origin, instances.compressed().tolist(), LABEL_COLUMNS))


def _first_annotated(regions: Column, masks: Sequence[str]) -> NDArray[np.bool_] | None:
    for mask in masks:
        rows: NDArray[np.bool_] = np.asarray(regions.filled(None) == mask, np.bool_)
        if rows.any():
            return rows
    return None


def _label_columns(table: Table, masks: Sequence[str]) -> Iterator[str]:
    # numbers of whole cells are not those of a nucleus mask that stands alone
    generic = LABEL_COLUMNS[int(len(masks) == 1 and "nucle" in masks[0].lower()) :]
    return (column for column in (*masks, *generic) if column in table.columns)


def _by_column(table: Table, column: str, origin: str) -> CellRows:
    if column not in table.columns:
        there = ", ".join(table.columns) or "none"
        raise ConfigError(f"{origin}: there is no column {column!r} (ids); the table has {there}")
    held = table.column(column)
    found = _whole_numbers(held)
    if found is None:
        raise ConfigError(
            f"{origin}: the column {column!r} must hold ids of the mask, whole numbers (it holds {column_content(held)})"
        )
    return CellRows(np.ones(found.shape, np.bool_), found)


def _whole_numbers(column: Column) -> NDArray[np.uint64] | None:
    """Ids as numbers, 0 where there is none; None when they are no ids."""
    if column.dtype.kind not in "iuf":
        return None
    missing = np.ma.getmaskarray(column) | (column.data != column.data)
    values = np.where(missing, 0, column.data)
    if values.size and (values.min() < 0 or values.max() > LARGEST_ID or (values != np.floor(values)).any()):
        return None
    return values.astype(np.uint64)


def _all_differ(ids: NDArray[np.uint64]) -> bool:
    """Whether they are ids at all, and not the numbers of clusters."""
    some = ids[ids > 0]
    return bool(some.size) and np.unique(some).size == some.size


def _no_numbers(table: Table, held: str, origin: str) -> ConfigError:
    name = table.attributes["instance_key"]
    return ConfigError(f"{origin}: the table's column of ids, {name!r}, must hold whole numbers (it holds {held})")


def _of_something_else(regions: Column, masks: Sequence[str], origin: str) -> ConfigError:
    there = sorted({str(region) for region in regions.compressed()})
    return ConfigError(
        f"{origin}: the table annotates {', '.join(there) or 'nothing'}, not the cells' mask ({' or '.join(masks)}); "
        "choose a table that does, or name its column with the ids of the mask (the key ids beside table and column)"
    )
