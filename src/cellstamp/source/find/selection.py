"""Find the ids of the cells that a configuration's key ``cells`` chooses."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from cellstamp.config_rules import FileColumn, IdChoice, TableColumn
from cellstamp.errors import ConfigError
from cellstamp.source.find.annotations import Column, Table, column_content, find_table, table_names
from cellstamp.source.find.id_files import IdColumn, read_ids
from cellstamp.source.find.masks import listing
from cellstamp.source.find.shapes_by_id import ids_of_shapes, numbered_shapes, taken_as_numbers, unknown_texts
from cellstamp.source.find.table_joins import rows_in_mask
from cellstamp.source.find.text_ids import ids_of_texts
from cellstamp.source.outlines import OutlineMask
from cellstamp.source.read.arrays import Mask, PixelSource
from cellstamp.source.values import Centers
from cellstamp.warnings import warn


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

    def among(self, centers: Centers, mask: Mask) -> Centers:
        """Return the chosen cells among all cells.

        Parameters
        ----------
        centers
            All cells.
        mask
            Their mask.

        Raises
        ------
        ConfigError
            If some of the chosen cells are missing.
        """
        unknown = self.ids[~np.isin(self.ids, centers.ids)]
        if unknown.size:
            examples = ", ".join(map(str, unknown[:5].tolist()))
            raise ConfigError(
                f"{self.origin}: {unknown.size} of {self.ids.size} cells are not among the {len(centers)} cells of "
                f"'{mask.name}' that have a centre: {examples}{', ...' if unknown.size > 5 else ''}. Give "
                f"{_allowed(centers, mask)}"
            )
        return centers[np.isin(centers.ids, self.ids)]


def _allowed(centers: Centers, mask: Mask) -> str:
    """Return examples of ids that choose cells."""
    examples = ", ".join(map(str, centers.ids[:3].tolist()))
    if not isinstance(mask, OutlineMask) or not mask.is_numbered:
        return f"ids of that mask, like {examples}"
    return f"values of scportrait_cell_id, like {examples}, or ids of the shapes as text, like {str(mask.names[0])!r}"


def find_cells(cells: IdChoice, source: PixelSource, handler: Any) -> ChosenCells | None:
    """Find the cells that a configuration chooses.

    Parameters
    ----------
    cells
        The key ``cells``: ids in the mask (integers), or in shapes or a table (texts); a CSV file of either; or a
        boolean column of a table.
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
    if ids.texts and source.outlines:
        texts = ids.texts if ids.first is None else _with_first(ids, source.outlines)
        if (found := ids_of_shapes(texts, source.outlines, origin)) is not None:
            return found
        if not source.labels:
            raise ConfigError(f"{origin}: {unknown_texts(texts, source.outlines)}")
    if ids.texts:
        tables = _all_tables(source, handler, origin)
        return ids_of_texts(ids.texts, tables, source.masks, origin, heading=ids.first)
    if not ids.numbers:
        raise ConfigError(f"{origin}: the file has no ids")
    numbers = np.array(sorted(ids.numbers), np.uint64)
    found = numbered_shapes(numbers, source.outlines, origin, of_program=bool(ids.of_program))
    if found is not None:
        return found
    main = source.main_mask
    if ids.of_program is None and isinstance(main, OutlineMask) and (message := taken_as_numbers(numbers, main)):
        warn(f"{origin}: {message}")
    return numbers


def _with_first(ids: IdColumn, masks: Sequence[OutlineMask]) -> frozenset[str]:
    """Return the texts of a file, with its first row if that is the id of a shape and no header."""
    first = np.array([ids.first], object)
    is_id = any(mask.ids_of(first).all() or mask.is_unpaired(first).all() for mask in masks)
    return ids.texts | {str(ids.first)} if is_id else ids.texts


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
