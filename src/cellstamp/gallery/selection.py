"""Selected cells, and tags: columns of cells that the user has named."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any, Literal, get_args

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from cellstamp.errors import ConfigError

Mode = Literal["add", "remove", "toggle", "set"]


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
        is_text = earlier is not None and not pd.api.types.is_bool_dtype(earlier.dtype)
        texts = pd.Series([None] * self.n_cells, dtype=object)
        if earlier is not None and is_text:
            texts = earlier.astype(object).map(
                str, na_action="ignore"
            )  # other programs also have numbers as categories
        self._columns[name] = pd.Series(pd.Categorical(texts.where(~pd.Series(chosen), value)))
