"""Selected cells, and tags: columns of cells that the user has named."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any, Literal, get_args

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from cellstamp.errors import ConfigError

Mode = Literal["add", "remove", "toggle", "set"]
_LISTED = 5
"""Labels in a question."""


@dataclass
class Selection:
    """Which cells are selected.

    Attributes
    ----------
    chosen
        bool (n_cells,).
    """

    chosen: NDArray[np.bool_]

    def change(self, rows: NDArray[np.int64], mode: str) -> None:
        """Select or deselect cells; "set" deselects all others.

        Raises
        ------
        ConfigError
            If the mode is unknown.
        """
        if mode not in get_args(Mode):
            raise ConfigError(f"mode = {mode!r}: must be one of {', '.join(get_args(Mode))}")
        chosen = np.zeros_like(self.chosen) if mode == "set" else self.chosen.copy()
        chosen[rows] = ~chosen[rows] if mode == "toggle" else mode != "remove"
        self.chosen = chosen

    @property
    def rows(self) -> NDArray[np.int64]:
        """Rows of the selected cells."""
        return np.flatnonzero(self.chosen)


@dataclass
class Tags:
    """Columns that the user has made of selections: booleans, or categories."""

    n_cells: int
    _columns: dict[str, pd.Series[Any]] = field(default_factory=dict)

    def __contains__(self, name: str) -> bool:
        return name in self._columns

    def __getitem__(self, name: str) -> pd.Series[Any]:
        return self._columns[name]

    def put(self, name: str, value: str | None, chosen: NDArray[np.bool_], before: pd.Series[Any] | None) -> None:
        """Make a column, or change it.

        Parameters
        ----------
        value
            Category of the chosen cells; others keep theirs. None: a boolean column, true for the chosen cells.
        before
            Column of this name in the table of features, which is continued; None: a new one.
        """
        if value is None:
            self._columns[name] = pd.Series(chosen.copy())
            return
        earlier = self._columns.get(name, before)
        texts = pd.Series([None] * self.n_cells)
        if earlier is not None and not is_boolean(earlier):
            # integers with missing values are floats: 1.0 becomes "1"
            texts = earlier.convert_dtypes().astype(str).astype(object).where(earlier.notna(), None)
        self._columns[name] = pd.Series(pd.Categorical(texts.where(~pd.Series(chosen), value)))


def is_boolean(column: pd.Series[Any]) -> bool:
    """Return whether the values of a column are booleans; some may be missing."""
    return bool(pd.api.types.infer_dtype(column, skipna=True) == "boolean")


def question_before(name: str, value: str | None, chosen: NDArray[np.bool_], column: pd.Series[Any]) -> str | None:
    """Return what to ask before a column is tagged, or None if no cell loses its label.

    Chosen cells that get another value don't count.
    """
    labels = column[column.notna()]
    if is_boolean(column):
        labels = labels[labels.astype(bool) & (value is not None or ~chosen[labels.index])]
    elif value is not None:
        return None
    if not labels.size:
        return None
    counts = labels.astype(str).value_counts()
    listed = ", ".join(f"{label} ({count:,})" for label, count in counts.iloc[:_LISTED].items())
    others = f" and {counts.size - _LISTED:,} more" if counts.size > _LISTED else ""
    if value is not None:
        return f"{name} has labels {listed}. Remove them, and label the selected cells {value}?"
    if is_boolean(column):
        return f"{name} has labels {listed} of cells that are not selected. Replace them by False?"
    return f"{name} has labels {listed}{others}. Replace them by True and False?"
