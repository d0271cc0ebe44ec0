"""Find the ids in a mask of cells that are named by text, through the table with these names."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence

import numpy as np
from numpy.typing import NDArray

from cellstamp.errors import ConfigError
from cellstamp.source.find.annotations import Column, Table
from cellstamp.source.find.joining_advice import first_ids, quoted
from cellstamp.source.find.shapes_by_id import unknown_texts
from cellstamp.source.find.table_joins import rows_in_mask
from cellstamp.source.id_columns import NAME_COLUMNS
from cellstamp.source.outlines import OutlineMask
from cellstamp.source.read.arrays import Mask


def ids_of_texts(
    texts: Iterable[str],
    tables: Iterable[Table],
    masks: Sequence[Mask],
    origin: str,
    *,
    heading: str | None = None,
) -> NDArray[np.uint64]:
    """Find the ids in the mask of cells that are named by text, through the table with most of the names.

    Parameters
    ----------
    texts
        Names of the cells.
    tables
        All tables of the store.
    masks
        The masks.
    origin
        Configuration key that names the cells, for messages.
    heading
        First row of a file: a name if a table has it, else the header.

    Returns
    -------
    ndarray
        uint64, ascending.

    Raises
    ------
    ConfigError
        If no table has all of them, or if the table cannot be joined to the masks.
    """
    wanted = sorted(texts)
    asked = wanted if heading is None else [heading, *wanted]
    best, rows_of = _table_with_most(asked, tables)
    outlines = [mask for mask in masks if isinstance(mask, OutlineMask)]
    if best is None and outlines:
        raise ConfigError(f"{origin}: {unknown_texts(wanted, outlines)}")
    if best is None:
        raise ConfigError(
            f"{origin}: the cells are named by text ({quoted(wanted)}), but ids in the mask '{masks[0].name}' are "
            f"integers ({first_ids(masks[0])}), and no table in {masks[0].store} has these texts. Give the integers"
        )
    unknown = [text for text in wanted if not rows_of[text]]
    if unknown:
        raise ConfigError(
            f"{origin}: {len(unknown)} of {len(wanted)} cells are not in table {best.name!r}, which has the others: "
            f"{', '.join(map(repr, unknown[:5]))}{', ...' if len(unknown) > 5 else ''}"
        )
    cells = rows_in_mask(best, masks, f"{origin}: table {best.name!r}")
    where = f"{' or '.join(mask.name for mask in masks)} in table {best.name!r}"
    return cells.of(_one_row_each(rows_of, cells.rows, where, origin), origin)


def _one_row_each(
    rows_of: Mapping[str, Sequence[int]], is_cell: NDArray[np.bool_], where: str, origin: str
) -> NDArray[np.bool_]:
    """Return a boolean array with the row of each text."""
    chosen = np.zeros(is_cell.shape, np.bool_)
    for text, named in rows_of.items():
        rows = [row for row in named if is_cell[row]]
        if named and len(rows) != 1:
            raise ConfigError(f"{origin}: {text!r} names {len(rows)} rows of {where}; it must name one")
        chosen[rows] = True
    return chosen


def _table_with_most(texts: Sequence[str], tables: Iterable[Table]) -> tuple[Table | None, dict[str, list[int]]]:
    """Return the table with a column that has most of the texts, and the rows of each text."""
    best: Table | None = None
    most: dict[str, list[int]] = {}
    for table in tables:
        for names in _columns_of_names(table):
            found = _rows_of(texts, names)
            if len(found) > len(most):
                best, most = table, found
    return best, {text: most.get(text, []) for text in texts}


def _columns_of_names(table: Table) -> Iterator[Column]:
    yield table.index()
    key = table.attributes.get("instance_key")
    for column in dict.fromkeys((key, *NAME_COLUMNS)):
        if column in table.columns and (names := table.column(str(column))).dtype.kind == "O":
            yield names


def _rows_of(texts: Sequence[str], names: Column) -> dict[str, list[int]]:
    wanted, found = set(texts), dict[str, list[int]]()
    for row, name in enumerate(names.filled(None).tolist()):
        if name in wanted:
            found.setdefault(name, []).append(row)
    return found
