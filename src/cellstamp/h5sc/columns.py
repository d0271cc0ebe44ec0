"""Find columns of a table of cells by name."""

from __future__ import annotations

from typing import Any

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from cellstamp.errors import ConfigError
from cellstamp.location import AnyPath
from cellstamp.similar_names import did_you_mean

_SHOWN = 20
"""Number of columns that a message lists."""


def column_of(obs: pd.DataFrame, name: str, key: str, where: AnyPath) -> pd.Series[Any]:
    """Return the column with this name.

    Parameters
    ----------
    key
        Name of the argument, for the message.
    where
        File of the table, for the message.

    Raises
    ------
    ConfigError
        If the column is missing.
    """
    if name not in obs:
        more = ", ..." if obs.columns.size > _SHOWN else ""
        hint = did_you_mean(name, obs) or f"; it has {', '.join(map(str, obs.columns[:_SHOWN]))}{more}"
        if key == "cells" and name.isdecimal():
            hint = f"; for the cell with this id, give [{int(name)}]"
        raise ConfigError(f"{key}: obs of {where} has no column {name!r}{hint}")
    column: pd.Series[Any] = obs[name]
    return column


def chosen_by(obs: pd.DataFrame, name: str, where: AnyPath) -> NDArray[np.bool_]:
    """Return a boolean column: bool (n_cells,).

    Raises
    ------
    ConfigError
        If the column is missing, or is not a boolean for every cell.
    """
    column = column_of(obs, name, "cells", where)
    if not pd.api.types.is_bool_dtype(column.dtype) or column.isna().any():
        message = f"cells: obs[{name!r}] of {where} is {column.dtype}; it must be a boolean for every cell"
        raise ConfigError(message)
    return np.asarray(column, np.bool_)
