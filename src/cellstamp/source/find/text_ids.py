"""Text that names cells -> their ids in a mask, through the table that knows the text."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence

import numpy as np
from numpy.typing import NDArray

from cellstamp.errors import ConfigError
from cellstamp.source.find.annotations import Column, Table
from cellstamp.source.find.joining_advice import quoted, some_ids
from cellstamp.source.find.table_joins import rows_in_mask
from cellstamp.source.read.arrays import ArrayHandle


def ids_of_texts(
    texts: Iterable[str],
    tables: Iterable[Table],
    masks: Sequence[ArrayHandle],
    origin: str,
    *,
    heading: str | None = None,
) -> NDArray[np.uint64]:
    """Find the ids in the mask of cells that are named by text, in the table that knows their names.

    Parameters
    ----------
    texts
        The names.
    tables
        All tables there are.
    masks
        The masks.
    origin
        What asks for it, for messages.
    heading
        A text that counts as a name when a table knows it.

    Returns
    -------
    ndarray
        uint64, ascending.

    Raises
    ------
    ConfigError
        If no table knows all of them, or the one that does cannot be joined to the masks.
    """
    wanted = sorted(texts)
    asked = wanted if heading is None else [heading, *wanted]
    best, where = _table_that_knows(asked, tables)
    if best is None:
        raise ConfigError(_nobody_knows(wanted, masks[0], origin))
    known = {text for text, rows in where.items() if rows}
    unknown = [text for text in wanted if text not in known]
    if unknown:
        raise ConfigError(
            f"{origin}: {len(unknown)} of {len(wanted)} cells are not in table {best.name!r}, which has the others: "
            f"{', '.join(map(repr, unknown[:5]))}{', ...' if len(unknown) > 5 else ''}"
        )
    cells = rows_in_mask(best, masks, f"{origin}: table {best.name!r}")
    chosen = np.zeros(cells.rows.shape, np.bool_)
    for text in known:
        rows = [row for row in where[text] if cells.rows[row]]
        if len(rows) != 1:
            named = " or ".join(mask.name for mask in masks)
            raise ConfigError(f"{origin}: {text!r} is {len(rows)} rows of {named} in table {best.name!r}; must be one")
        chosen[rows] = True
    return cells.of(chosen, origin)


def _table_that_knows(texts: Sequence[str], tables: Iterable[Table]) -> tuple[Table | None, dict[str, list[int]]]:
    """The table with a column that has most of the texts, and the rows of each."""
    best: Table | None = None
    where: dict[str, list[int]] = {}
    for table in tables:
        for names in _columns_of_names(table):
            found = _rows_of(texts, names)
            if len(found) > len(where):
                best, where = table, found
    return best, {text: where.get(text, []) for text in texts}


def _columns_of_names(table: Table) -> Iterator[Column]:
    yield table.index()
    key = table.attributes.get("instance_key")
    for column in dict.fromkeys((key, "cell_id", "barcode")):
        if column in table.columns and (names := table.column(str(column))).dtype.kind == "O":
            yield names


def _rows_of(texts: Sequence[str], names: Column) -> dict[str, list[int]]:
    wanted, found = set(texts), dict[str, list[int]]()
    for row, name in enumerate(names.filled(None).tolist()):
        if name in wanted:
            found.setdefault(name, []).append(row)
    return found


def _nobody_knows(texts: Sequence[str], mask: ArrayHandle, origin: str) -> str:
    return (
        f"{origin}: names cells by text ({quoted(texts)}), the mask '{mask.name}' by integers ({some_ids(mask)}), and "
        f"no table in {mask.store} has these texts. Give the integers"
    )
