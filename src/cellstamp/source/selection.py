"""The key ``cells`` of a configuration -> the ids of the cells it means."""

from __future__ import annotations

import csv
import re
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TextIO

import numpy as np
from numpy.typing import NDArray

from cellstamp.errors import ConfigError
from cellstamp.rules import LARGEST_ID, TableColumn
from cellstamp.source.annotations import Table, find_table, kind_of
from cellstamp.source.arrays import PixelSource
from cellstamp.source.values import Centers

ID_COLUMNS = ("scportrait_cell_id", "cell_id", "instance_id", "label")
"""Names that a column of ids goes by, in a file with several; the first of them that is there counts."""

# What pandas writes of a column in which something is missing, "12.0", is a whole number too.
_WHOLE = re.compile(r"\+?(\d{1,19})(\.0*)?")


@dataclass(frozen=True)
class ChosenCells:
    """Cells that were chosen.

    Attributes
    ----------
    ids
        uint64 (n,), ascending.
    origin
        Where the choice comes from, for messages.
    """

    ids: NDArray[np.uint64]
    origin: str

    def among(self, centers: Centers, mask: str) -> Centers:
        """The chosen of all cells.

        Parameters
        ----------
        centers
            All cells.
        mask
            Name of the mask they are in.

        Raises
        ------
        ConfigError
            If some of the chosen are not there.
        """
        unknown = self.ids[~np.isin(self.ids, centers.ids)]
        if unknown.size:
            examples = ", ".join(map(str, unknown[:5].tolist()))
            raise ConfigError(
                f"{self.origin}: {unknown.size} of {self.ids.size} cells are not among the {len(centers)} cells of "
                f"'{mask}' that have a centre: {examples}{', ...' if unknown.size > 5 else ''}. Give ids of that mask"
            )
        return centers[np.isin(centers.ids, self.ids)]


def find_cells(
    cells: tuple[int, ...] | Path | TableColumn | None, source: PixelSource, handler: Any
) -> ChosenCells | None:
    """Find out which cells are meant.

    Parameters
    ----------
    cells
        The configuration's: ids, a CSV file of ids, or a boolean column of a table.
    source
        Image and masks; a table must annotate one of the masks.
    handler
        What the step was given as its file handler: a table of a SpatialData object is read as it is in memory.

    Returns
    -------
    ChosenCells or None
        None: all of them.

    Raises
    ------
    ConfigError
        If the file or the table cannot be used, or chooses no cell.
    """
    if cells is None:
        return None
    if isinstance(cells, TableColumn):
        origin = f"cells = table {cells.table!r}, column {cells.column!r}"
        table = find_table(cells.table, source.main_mask.store, handler, origin)
        return ChosenCells(_ids_of_table(table, cells.column, source.mask_names, origin), origin)
    if isinstance(cells, Path):
        origin = f"cells = {str(cells)!r}"
        return ChosenCells(_ids_of_file(cells, origin), origin)
    return ChosenCells(np.array(cells, np.uint64), "cells")


def _ids_of_table(table: Table, column: str, masks: tuple[str, ...], origin: str) -> NDArray[np.uint64]:
    if column not in table.columns:
        raise ConfigError(f"{origin}: there is no such column; the table has {', '.join(table.columns) or 'none'}")
    flags = table.column(column)
    if flags.dtype.kind != "b":
        raise ConfigError(
            f"{origin}: must be a column of true and false (it holds {kind_of(flags)}); the table's columns are "
            f"{', '.join(table.columns)}"
        )
    rows = table.rows_of(masks, origin)
    flags = flags[rows]
    n_missing = int(np.ma.getmaskarray(flags).sum())
    if n_missing:
        raise ConfigError(
            f"{origin}: {n_missing} of {flags.size} cells have neither true nor false there (NA); fill them in"
        )
    chosen = table.instances(origin)[rows][flags.data]
    if not chosen.size:
        raise ConfigError(f"{origin}: it is true for none of {flags.size} cells")
    return np.unique(chosen)


def _ids_of_file(path: Path, origin: str) -> NDArray[np.uint64]:
    try:
        with path.open(newline="", encoding="utf-8-sig") as file:
            ids = {_as_id(text, f"{origin}, line {line}") for line, text in _texts(file, origin)}
    except FileNotFoundError as error:
        raise ConfigError(f"{origin}: there is no such file ({path.absolute()})") from error
    except IsADirectoryError as error:
        raise ConfigError(f"{origin}: this is a folder, not a CSV file") from error
    except (OSError, UnicodeDecodeError, csv.Error) as error:
        raise ConfigError(f"{origin}: cannot be read as a CSV file: {error}") from error
    if not ids:
        raise ConfigError(f"{origin}: there are no ids in the file")
    return np.array(sorted(ids), np.uint64)


def _texts(file: TextIO, origin: str) -> Iterator[tuple[int, str]]:
    """The number of each line with something in it, and what is in its column of ids."""
    separator = next((mark for mark in ",;\t" if mark in file.readline()), ",")
    file.seek(0)
    rows = _filled_rows(file, separator)
    number, first = next(rows, (0, []))
    column, is_header = _column_of_ids(first, origin)
    if first and not is_header:
        yield number, first[column]
    for number, row in rows:
        yield number, row[column] if column < len(row) else ""


def _filled_rows(file: Iterable[str], separator: str) -> Iterator[tuple[int, list[str]]]:
    reader = csv.reader(file, delimiter=separator)
    for row in reader:
        fields = [field.strip() for field in row]
        if any(fields):
            yield reader.line_num, fields


def _column_of_ids(first: list[str], origin: str) -> tuple[int, bool]:
    """Which column of a file holds the ids, and whether the first row is a header."""
    names = [field.lower() for field in first]
    known = [names.index(name) for name in ID_COLUMNS if name in names]
    if known:
        return known[0], True
    # a number with a slip in it is no header: its cell would be left out and nobody told
    is_header = not any(re.match(r"[-+.\d]", field) for field in first)
    if len(first) <= 1:
        return 0, is_header
    wanted = f"one must be named {', '.join(ID_COLUMNS[:-1])} or {ID_COLUMNS[-1]}"
    if is_header:
        raise ConfigError(f"{origin}: which column holds the ids? There are {', '.join(first)}; {wanted}")
    raise ConfigError(f"{origin}: there are {len(first)} columns and no header; {wanted}, or leave only the ids")


def _as_id(text: str, where: str) -> int:
    found = _WHOLE.fullmatch(text)
    cell = int(found[1]) if found else 0
    if not 1 <= cell <= LARGEST_ID:
        shown = repr(text if len(text) <= 40 else f"{text[:40]}...")
        raise ConfigError(f"{where}: {shown} is no cell id; must be a whole number from 1 to 2**63 - 1")
    return cell
