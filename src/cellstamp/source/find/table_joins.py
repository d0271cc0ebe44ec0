"""Join rows of a table to cells of a mask, through the table's columns."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from cellstamp.config_rules import LARGEST_ID
from cellstamp.errors import ConfigError
from cellstamp.source.find.annotations import Column, Table, column_content
from cellstamp.source.find.joining_advice import how_to_join
from cellstamp.source.find.masks import listing
from cellstamp.source.find.shapes_by_id import leave_out
from cellstamp.source.id_columns import LABEL_COLUMNS, SHAPE_COLUMNS
from cellstamp.source.outlines import OutlineMask
from cellstamp.source.read.arrays import Mask


@dataclass(frozen=True)
class CellRows:
    """Rows of a table that are cells of a mask.

    Attributes
    ----------
    rows
        bool (n,): whether a row is a cell.
    ids
        uint64 (n,): the id in the mask; 0: none.
    unpaired
        Shapes, and for each row the id of a cell of theirs without a nucleus, which is left out; None: none.
    """

    rows: NDArray[np.bool_]
    ids: NDArray[np.uint64]
    unpaired: tuple[OutlineMask, NDArray[Any]] | None = None

    def of(self, wanted: NDArray[np.bool_], origin: str) -> NDArray[np.uint64]:
        """Return the ids of the wanted rows, ascending.

        Raises
        ------
        ConfigError
            If some of these cells have no id.
        """
        chosen = self.rows & wanted
        if self.unpaired is not None:
            chosen = self._paired(chosen, *self.unpaired, origin)
        found = self.ids[chosen]
        n_without = int((found == 0).sum())
        if n_without:
            raise ConfigError(
                f"{origin}: {n_without} of {found.size} cells have no id in the mask (0 or NA). Leave them out, with a "
                "column that is false for them"
            )
        return np.unique(found)

    def _paired(
        self, chosen: NDArray[np.bool_], mask: OutlineMask, names: NDArray[Any], origin: str
    ) -> NDArray[np.bool_]:
        without = chosen & mask.is_unpaired(names)
        if without.any():
            leave_out(names[without], int(chosen.sum()), mask, origin)
        return chosen & ~without


def rows_in_mask(table: Table, masks: Sequence[Mask], origin: str, ids: str | None = None) -> CellRows:
    """Find the rows of a table that are cells of one of the masks.

    The ids are numbers in the table's instance key. If rows annotate something else, or the key is text, the ids are in
    a column with the name of a mask, or else in one of `LABEL_COLUMNS`.

    Parameters
    ----------
    table
        The table.
    masks
        The masks. Rows of the first mask that the table annotates are used, as ids are the same in all.
    origin
        Configuration key that names the table, for messages.
    ids
        Name of the column with each row's id in the mask; overrides the search.

    Raises
    ------
    ConfigError
        If the table cannot be joined to the masks, or two columns have different ids.
    """
    outlines = [mask for mask in masks if isinstance(mask, OutlineMask)]
    if ids is not None and ids in table.columns and outlines:
        column = table.column(ids)
        return CellRows(np.ones(column.shape, np.bool_), *_cells_of(column, outlines[-1]))
    if ids is not None:
        return _by_column(table, ids, origin)
    if outlines and (by_name := _by_name(table, outlines[-1], origin)) is not None:
        return by_name
    if outlines and outlines[-1].is_numbered:
        # these cells were numbered by cellstamp, so no column can have their ids
        raise _of_something_else(table.regions(origin), [mask.name for mask in masks], origin)
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
    # if a nucleus mask is the only mask, columns with ids of cells are not its ids
    generic = LABEL_COLUMNS[int(len(masks) == 1 and "nucle" in names[0].lower()) :]
    for columns in (names, generic):
        found = _label_column(table, columns, rows, masks, origin)
        if found is not None:
            return CellRows(rows, found)
    if instances.dtype.kind in "iu":
        raise _of_something_else(regions, names, origin)
    if instances.dtype.kind != "O":
        raise _no_numbers(table, column_content(instances), origin)
    raise ConfigError(how_to_join(table, masks, origin, instances.compressed().tolist(), LABEL_COLUMNS))


def _by_name(table: Table, mask: OutlineMask, origin: str) -> CellRows | None:
    """Return the rows whose instance is a shape of a mask; None if there is none.

    Rows that annotate something else name the shapes by text, in their instance key or in a column such as `cell_id`:
    integers may be those of labels.
    """
    own = np.asarray(table.regions(origin).filled(None) == mask.name, np.bool_)
    if own.any():
        found, unpaired = _cells_of(table.instances(origin), mask)
        return CellRows(own, found, unpaired) if (found[own] > 0).any() else None
    columns = [table.instances(origin), *(table.column(name) for name in SHAPE_COLUMNS if name in table.columns)]
    for column in columns:
        if column.dtype.kind != "O":
            continue
        found, unpaired = _cells_of(column, mask)
        if found.any():
            return CellRows((found > 0) | mask.is_unpaired(unpaired[1]), found, unpaired)
    return None


def _cells_of(column: Column, mask: OutlineMask) -> tuple[NDArray[np.uint64], tuple[OutlineMask, NDArray[Any]]]:
    """Return the ids of the shapes that a column names; and the shapes, with these names."""
    return _named(column, mask), (mask, column.filled("" if column.dtype.kind == "O" else 0))


def _named(column: Column, mask: OutlineMask) -> NDArray[np.uint64]:
    """Return the ids of the shapes that a column names; 0: none."""
    known = ~np.ma.getmaskarray(column)
    found = np.zeros(known.size, np.uint64)
    found[known] = mask.ids_of(column.data[known])
    return found


def _first_annotated(regions: Column, masks: Sequence[str]) -> NDArray[np.bool_] | None:
    for mask in masks:
        rows: NDArray[np.bool_] = np.asarray(regions.filled(None) == mask, np.bool_)
        if rows.any():
            return rows
    return None


def _label_column(
    table: Table, columns: Sequence[str], rows: NDArray[np.bool_], masks: Sequence[Mask], origin: str
) -> NDArray[np.uint64] | None:
    """Return the ids in the columns of these names that have ids; None if none has.

    Raises
    ------
    ConfigError
        If two of the columns have different ids.
    """
    found = {column: ids for column in columns if (ids := _ids_in(table, column, rows)) is not None}
    if not found:
        return None
    (first, ids), *others = found.items()
    for column, other in others:
        if not np.array_equal(ids[rows], other[rows]):
            raise ConfigError(
                f"{origin}: the columns {first!r} and {column!r} of the table have different ids. Name the one with "
                f"the ids in the mask '{masks[0].name}', like ids: {first}, beside table and column"
            )
    return ids


def _ids_in(table: Table, column: str, rows: NDArray[np.bool_]) -> NDArray[np.uint64] | None:
    """Return the ids in a column; None if it is missing, or its values are not one id for each row."""
    if column not in table.columns:
        return None
    ids = _whole_numbers(table.column(column))
    return ids if ids is not None and _all_differ(ids[rows]) else None


def _by_column(table: Table, column: str, origin: str) -> CellRows:
    if column not in table.columns:
        raise ConfigError(f"{origin}: the column {column!r} (ids) is missing; the table has {listing(table.columns)}")
    values = table.column(column)
    found = _whole_numbers(values)
    if found is None:
        raise ConfigError(f"{origin}: the column {column!r} must have integer ids (it has {column_content(values)})")
    return CellRows(np.ones(found.shape, np.bool_), found)


def _whole_numbers(column: Column) -> NDArray[np.uint64] | None:
    """Return ids as numbers, 0 for missing ones; None if some value is not an id."""
    if column.dtype.kind not in "iuf":
        return None
    missing = np.ma.getmaskarray(column) | (column.data != column.data)
    values = np.where(missing, 0, column.data)
    if values.size and (values.min() < 0 or values.max() > LARGEST_ID or (values != np.floor(values)).any()):
        return None
    return values.astype(np.uint64)


def _all_differ(ids: NDArray[np.uint64]) -> bool:
    """Return whether all ids differ; cluster numbers repeat."""
    ids = ids[ids > 0]
    return bool(ids.size) and np.unique(ids).size == ids.size


def _no_numbers(table: Table, content: str, origin: str) -> ConfigError:
    name = table.attributes["instance_key"]
    return ConfigError(f"{origin}: the table's column of ids, {name!r}, must have integers (it has {content})")


def _of_something_else(regions: Column, masks: Sequence[str], origin: str) -> ConfigError:
    annotated = sorted({str(region) for region in regions.compressed()})
    return ConfigError(
        f"{origin}: the table annotates {listing(annotated, 'nothing')}, not the cells' mask ({' or '.join(masks)}). "
        "Choose a table that does, or name its column with the ids of the mask: the key ids, beside table and column"
    )
