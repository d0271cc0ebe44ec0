"""Join the columns of images and of features to one value for each cell of the gallery."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field
from functools import partial
from typing import Any

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from cellstamp.errors import InputError
from cellstamp.gallery.columns import Column, Source
from cellstamp.h5sc.cell_columns import CellColumns, Read, Reader, columns_of_features

_EXAMPLES = 3


@dataclass(frozen=True)
class JoinedFeatures:
    """A table of features whose rows may be in another order, or lack cells.

    Attributes
    ----------
    rows
        int64 (n_cells,): row of each cell of the gallery in the table, -1 if it has none. None: the same cells in the
        same order.
    """

    table: CellColumns
    rows: NDArray[np.int64] | None = field(default=None)

    def columns(self) -> Iterator[Column]:
        """Yield all columns, for the cells of the gallery."""
        for name, reader in self.table.obs.items():
            yield Column(name, "obs", partial(self._joined, reader.column), partial(self._value, reader))
        others: list[tuple[Source, dict[str, Read]]] = [
            ("feature", self.table.features),
            ("embedding", self.table.embeddings),
        ]
        for source, readers in others:
            for name, read in readers.items():
                yield Column(name, source, partial(self._joined, read))

    def _joined(self, read: Read) -> Any:
        return self.of_gallery(pd.Series(read()))

    def _value(self, read: Reader, row: int) -> Any:
        place = row if self.rows is None else int(self.rows[row])
        return None if place < 0 else read.value(place)

    def values_of(self, row: int) -> dict[str, Any]:
        """Return all features of a cell by name; none if the table lacks the cell."""
        place = row if self.rows is None else int(self.rows[row])
        return {} if place < 0 else dict(zip(self.table.features, self.table.feature_row(place), strict=True))

    def of_gallery(self, column: pd.Series[Any]) -> pd.Series[Any]:
        """Return a column of the table for the cells of the gallery; cells that it lacks have no value."""
        column = column.reset_index(drop=True)
        return column if self.rows is None else column.reindex(self.rows).reset_index(drop=True)

    def of_table(self, column: pd.Series[Any]) -> pd.Series[Any]:
        """Return a column of the gallery for the rows of the table."""
        if self.rows is None:
            return column
        order = np.full(self.table.cell_ids.size, -1, np.int64)
        known = np.flatnonzero(self.rows >= 0)
        order[self.rows[known]] = known
        return column.iloc[order].reset_index(drop=True)

    @property
    def n_missing(self) -> int:
        """Number of cells of the gallery without features."""
        return 0 if self.rows is None else int((self.rows < 0).sum())


def join_features(features: Any, cell_ids: NDArray[np.uint64], where: str) -> JoinedFeatures:
    """Find the row of each cell in a table of features.

    Parameters
    ----------
    features
        Path or `AnnData`.
    cell_ids
        Of the gallery.
    where
        Name of the images, for messages.

    Raises
    ------
    InputError
        If the table has cells that the images lack, or a cell twice.
    """
    table = columns_of_features(features)
    if np.array_equal(table.cell_ids, cell_ids):
        return JoinedFeatures(table)
    unique = np.unique(table.cell_ids)
    foreign = table.cell_ids[~np.isin(table.cell_ids, cell_ids)]
    if foreign.size or unique.size < table.cell_ids.size:
        problem = (
            f"{foreign.size:,} of its {table.cell_ids.size:,} cells are not in {where}, such as "
            f"{', '.join(map(str, foreign[:_EXAMPLES].tolist()))}"
            if foreign.size
            else "it has cells more than once"
        )
        raise InputError(f"features: {table.where} has other cells: {problem}. Use the features of these images")
    order = np.argsort(table.cell_ids)
    places = np.searchsorted(table.cell_ids, cell_ids, sorter=order).clip(0, order.size - 1)
    rows = order[places] if order.size else np.zeros(cell_ids.size, np.int64)
    has = np.isin(cell_ids, table.cell_ids)
    return JoinedFeatures(table, np.where(has, rows, -1))
