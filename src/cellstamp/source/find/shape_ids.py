"""Number cells that are given as shapes, and match the shapes of nuclei to those of cells."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from cellstamp.errors import InputError
from cellstamp.rules import LARGEST_ID
from cellstamp.source.find.masks import listing
from cellstamp.source.find.outline_files import FileOutlines
from cellstamp.source.outlines import centers_of

if TYPE_CHECKING:
    import pandas as pd


@dataclass(frozen=True)
class ShapesElement:
    """A shapes element.

    Attributes
    ----------
    name, where, path
        Its name, its name for messages, and its file.
    found
        Its outlines.
    columns
        Its columns but the geometry, and its index.
    """

    name: str
    where: str
    path: str
    found: FileOutlines
    columns: pd.DataFrame

    @property
    def index(self) -> NDArray[Any]:
        """Return the index of the shapes that have an outline."""
        return self.columns.index.to_numpy()[self.found.rows]

    def column(self, name: str) -> NDArray[Any]:
        """Return a column of the shapes that have an outline."""
        return self.columns[name].to_numpy()[self.found.rows]


@dataclass(frozen=True)
class NumberedCells:
    """Cells of a mask.

    Attributes
    ----------
    ids
        uint64 (n,), ascending.
    numbers
        int64 (n,): numbers of their outlines.
    centers
        float64 (n, 2).
    names
        Their ids in the element: integers or texts (n,).
    """

    ids: NDArray[np.uint64]
    numbers: NDArray[np.int64]
    centers: NDArray[np.float64]
    names: NDArray[Any]


def number_cells(
    elements: Sequence[ShapesElement], *, with_labels: bool
) -> tuple[list[NumberedCells], list[str]]:
    """Give each cell an id: its index if that is a positive integer for all, else 1, 2, ... in the element's order.

    Parameters
    ----------
    elements
        One or two; of two, the first has the nuclei.
    with_labels
        Whether the ids must be ids of labels.

    Returns
    -------
    list, list
        The cells of each element, and sentences about cells that are left out.

    Raises
    ------
    InputError
        If an id is repeated, if two elements have no ids in common, or if ids are no ids of labels.
    """
    for element in elements:
        _check_differ(element)
    first = elements[0]
    if len(elements) == 1:
        ids = _as_ids(first.index)
        if ids is None and with_labels:
            raise InputError(
                f"{first.where}: its index must have the ids of the labels, positive integers; it has "
                f"{_shown(first.index)}. Set it: sdata['{first.name}'].index = ..."
            )
        return [_cells(first, np.arange(first.index.size), ids)], []
    return _match(*elements)


def _cells(element: ShapesElement, rows: NDArray[np.int64], ids: NDArray[np.uint64] | None) -> NumberedCells:
    """Return the cells of some outlines of an element, ascending by id; without ids, numbered in their order."""
    ids = np.arange(1, rows.size + 1).astype(np.uint64) if ids is None else ids
    rows = rows[order] if (order := np.argsort(ids, kind="stable")).size else rows
    found = element.found
    return NumberedCells(ids[order], found.first + rows, found.centers[rows], element.index[rows])
