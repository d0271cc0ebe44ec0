"""Find the ids of the cells that a configuration's key ``cells`` chooses."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from cellstamp.config_rules import CellChoice, FileColumn, TableColumn
from cellstamp.errors import ConfigError
from cellstamp.source.find.annotations import Column, Table, column_content, find_table, table_names
from cellstamp.source.find.id_files import IdColumn, read_ids
from cellstamp.source.find.masks import listing
from cellstamp.source.find.table_joins import rows_in_mask
from cellstamp.source.find.text_ids import ids_of_texts
from cellstamp.source.outlines import OutlineMask
from cellstamp.source.read.arrays import PixelSource
from cellstamp.source.values import Centers


@dataclass(frozen=True)
class ChosenCells:
    """Chosen cells.

    Attributes
    ----------
    ids
        uint64 (n,), ascending.
    origin
        Source of the choice, for messages.
    """

    ids: NDArray[np.uint64]
    origin: str

    def among(self, centers: Centers, mask: str) -> Centers:
        """Return the chosen cells among all cells.

        Parameters
        ----------
        centers
            All cells.
        mask
            Name of their mask.

        Raises
        ------
        ConfigError
            If some of the chosen cells are missing.
        """
        unknown = self.ids[~np.isin(self.ids, centers.ids)]
        if unknown.size:
            raise ConfigError(
                f"{self.origin}: {unknown.size} of {self.ids.size} cells are not among the {len(centers)} cells of "
                f"'{mask}' that have a centre: {_listed(unknown)}. Give ids of that mask, like "
                f"{_listed(centers.ids[:3])}"
            )
        return centers[np.isin(centers.ids, self.ids)]


def find_cells(cells: CellChoice, source: PixelSource, handler: Any) -> ChosenCells | None:
    """Find the cells that a configuration chooses.

    Parameters
    ----------
    cells
        The key ``cells``: ids in the mask or in a table, a CSV file of either, or a boolean column of a table.
    source
        Image and masks. A table must annotate one of the masks, or have a column with the ids in one.
    handler
        The step's file handler. A table of a SpatialData object is read from memory.

    Returns
    -------
    ChosenCells or None
        None: all cells.

    Raises
    ------
    ConfigError
        If the file or the table is invalid, or chooses no cell.
    """
    if cells is None:
        return None
    if isinstance(cells, TableColumn):
        origin = f"cells = table {cells.table!r}, column {cells.column!r}"
        table = find_table(cells.table, source.main_mask.store, handler, origin)
        return ChosenCells(_ids_of_table(table, cells, source, origin), origin)
    if isinstance(cells, Path | FileColumn):
        path, column = (cells, None) if isinstance(cells, Path) else (cells.path, cells.ids)
        origin = f"cells = {str(path)!r}"
        return ChosenCells(
            _ids_of_column(read_ids(path, column=column, masks=source.mask_names), source, handler, origin), origin
        )
    texts = frozenset(cell for cell in cells if isinstance(cell, str))
    ids = IdColumn(frozenset(cell for cell in cells if isinstance(cell, int)), texts)
    return ChosenCells(_ids_of_column(ids, source, handler, "cells"), "cells")


def _ids_of_column(ids: IdColumn, source: PixelSource, handler: Any, origin: str) -> NDArray[np.uint64]:
    if ids.texts and (found := _ids_of_shapes(ids.texts, source)) is not None:
        return found
    if ids.texts:
        tables = _all_tables(source, handler, origin)
        return ids_of_texts(ids.texts, tables, source.masks, origin, heading=ids.first)
    if not ids.numbers:
        raise ConfigError(f"{origin}: the file has no ids")
    numbers = np.array(sorted(ids.numbers), np.uint64)
    for mask in source.outlines:
        if (found := _ids_of_names(numbers, mask, of_program=ids.of_program)).any():
            _check_none_missing(numbers[found == 0], numbers.size, mask, origin)
            return np.unique(found)
    return numbers


def _ids_of_names(numbers: NDArray[np.uint64], mask: OutlineMask, *, of_program: bool) -> NDArray[np.uint64]:
    """Return the ids of cells that shapes name by these integers; 0: none.

    Texts may look like integers (MERSCOPE's EntityID). Where shapes have other integers than the mask (Proseg counts
    from 0), only the columns of programs have those of the shapes.
    """
    if mask.names.dtype.kind not in "iu":
        return mask.ids_of(numbers.astype(str))
    if of_program and mask.is_numbered:
        return mask.ids_of(numbers.astype(np.int64))
    return np.zeros(numbers.size, np.uint64)


def _check_none_missing(missing: NDArray[np.uint64], n_chosen: int, mask: OutlineMask, origin: str) -> None:
    if missing.size:
        raise ConfigError(
            f"{origin}: {missing.size} of {n_chosen} cells are not among the {mask.names.size} cells of '{mask.name}': "
            f"{_listed(missing)}. Give ids of that mask, like {_listed(mask.names[:3])}"
        )


def _listed(cells: NDArray[Any]) -> str:
    return ", ".join(map(str, cells[:5].tolist())) + (", ..." if cells.size > 5 else "")


def _ids_of_shapes(texts: frozenset[str], source: PixelSource) -> NDArray[np.uint64] | None:
    """Return the ids of cells that shapes name by text; None if some are not among them."""
    for mask in source.outlines:
        found = mask.ids_of(np.array(sorted(texts), object))
        if found.all():
            return np.unique(found)
    return None


def _all_tables(source: PixelSource, handler: Any, origin: str) -> Iterator[Table]:
    store = source.main_mask.store
    return (find_table(name, store, handler, origin) for name in table_names(store, handler))


def _ids_of_table(table: Table, cells: TableColumn, source: PixelSource, origin: str) -> NDArray[np.uint64]:
    if cells.column not in table.columns:
        raise ConfigError(f"{origin}: this column is missing; the table has {listing(table.columns)}")
    flags = table.column(cells.column)
    if flags.dtype.kind != "b":
        raise ConfigError(
            f"{origin}: must be a boolean column (it has {column_content(flags)}); the table's columns are "
            f"{listing(table.columns)}{_how_to_choose(table, cells.column, flags)}"
        )
    found = rows_in_mask(table, source.masks, origin, cells.ids)
    flags = flags[found.rows]
    n_missing = int(np.ma.getmaskarray(flags).sum())
    if n_missing:
        raise ConfigError(
            f"{origin}: {n_missing} of {flags.size} cells have a missing value (NA); set each to true or false"
        )
    if not flags.data.any():
        raise ConfigError(f"{origin}: the column is true for none of {flags.size} cells")
    chosen = found.rows.copy()
    chosen[found.rows] = flags.data
    return found.of(chosen, origin)


def _how_to_choose(table: Table, column: str, values: Column) -> str:
    """Return code that makes a boolean column from a column of categories."""
    categories = values.compressed()
    if values.dtype.kind != "O" or not categories.size:
        return ""
    obs = f"sdata[{table.name!r}].obs"
    return f". Choose one value: {obs}['chosen'] = {obs}[{column!r}] == {str(categories[0])!r}"
